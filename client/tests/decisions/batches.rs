//! Batches: one group per range, grouped again after a split, definite only as a whole.

use crate::scripted::{Asked, Reply, Scripted, done, epoch_mismatch, error, range};
use isotherm_client::{ErrorKind, Write, WriteResult};
use isotherm_proto::internal::error::Code;

fn keys(asked: &Asked) -> String {
    let keys = asked.write().ops.iter().map(|op| String::from_utf8_lossy(&op.key).into_owned());
    keys.collect::<Vec<_>>().join(",")
}

fn writes() -> Vec<Write> {
    ["a", "x", "b", "y"].map(|key| Write::put(key, "v")).to_vec()
}

#[tokio::test]
async fn a_batch_is_one_group_per_range_in_order() {
    let ranges = vec![range(1, "", "m", 2), range(2, "m", "", 2)];
    let cluster = Scripted::start(ranges, |_, asked| done(asked, 2000 + asked.range)).await;
    let results = cluster.client.batch(writes()).await.unwrap();
    let ts = |result: &WriteResult| match result {
        WriteResult::Put { ts } => ts.get(),
        other => panic!("{other:?}"),
    };
    assert_eq!(results.iter().map(ts).collect::<Vec<_>>(), [2001, 2002, 2001, 2002]);
    let mut groups: Vec<_> = cluster.state.asked().iter().map(|a| (a.range, keys(a))).collect();
    groups.sort();
    assert_eq!(groups, [(1, "a,b".to_owned()), (2, "x,y".to_owned())]);
}

#[tokio::test]
async fn a_group_whose_range_was_split_is_grouped_again_under_new_identities() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |_, asked| match asked.version {
        1 => epoch_mismatch(vec![range(1, "", "m", 2), range(2, "m", "", 2)]),
        _ => done(asked, 2000),
    })
    .await;
    assert_eq!(cluster.client.batch(writes()).await.unwrap().len(), 4);
    let asked = cluster.state.asked();
    assert_eq!(keys(&asked[0]), "a,x,b,y");
    let mut seqs: Vec<_> = asked.iter().map(|a| a.write().seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, [1, 2, 3]);
}

#[tokio::test]
async fn a_group_that_was_open_when_its_range_was_split_stays_open() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |n, asked| match n {
        0 => Reply::HangUp,
        1 => epoch_mismatch(vec![range(1, "", "m", 2), range(2, "m", "", 2)]),
        _ => done(asked, 2000),
    })
    .await;
    let open = cluster.client.batch(writes()).await.unwrap_err();
    assert_eq!(open.kind, ErrorKind::Indeterminate);
    assert_eq!(cluster.state.asked().len(), 2, "nothing of it is sent under another identity");
}

#[tokio::test]
async fn a_batch_of_which_a_part_was_applied_is_not_definite() {
    let ranges = || vec![range(1, "", "m", 2), range(2, "m", "", 2)];
    let cluster = Scripted::start(ranges(), |_, asked| match asked.range {
        1 => done(asked, 2000),
        _ => error(Code::DiskFull),
    })
    .await;
    let refused = cluster.client.batch(writes()).await.unwrap_err();
    assert!(!refused.is_definite());
    assert!(refused.message.contains("2 of the 4"), "{refused}");

    let cluster = Scripted::start(ranges(), |_, asked| match asked.range {
        1 => Reply::Silence,
        _ => error(Code::DiskFull),
    })
    .await;
    assert!(!cluster.client.batch(writes()).await.unwrap_err().is_definite());

    let cluster = Scripted::start(ranges(), |_, _| error(Code::DiskFull)).await;
    let refused = cluster.client.batch(writes()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::DiskFull, "nothing of it was applied");
}
