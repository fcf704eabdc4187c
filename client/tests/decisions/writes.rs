//! What is repeated under which identity, and what is reported when it stays open.

use crate::scripted::{Asked, Reply, Scripted, done, error, not_leader, range};
use isotherm_client::ErrorKind;
use isotherm_proto::internal::error::Code;
use std::sync::atomic::Ordering;

async fn one_range(script: impl FnMut(usize, &Asked) -> Reply + Send + 'static) -> Scripted {
    Scripted::start(vec![range(1, "", "", 1)], script).await
}

/// (session, seq) of everything that was asked.
fn identities(cluster: &Scripted) -> Vec<(u64, u64)> {
    let identity = |a: &Asked| (a.write().session_number, a.write().seq);
    cluster.state.asked().iter().map(identity).collect()
}

#[tokio::test]
async fn a_write_whose_stream_was_lost_is_repeated_under_its_identity() {
    let cluster = one_range(|n, asked| match n {
        0 => Reply::HangUp,
        1 => Reply::Silence,
        2 => error(Code::Indeterminate),
        _ => done(asked, 2000),
    })
    .await;
    assert_eq!(cluster.client.put("k", "v").await.unwrap().get(), 2000);
    assert_eq!(identities(&cluster), [(1, 1); 4]);
    let births: Vec<_> = cluster.state.asked().iter().map(|a| a.write().birth).collect();
    assert!(births.iter().all(|birth| *birth == births[0] && *birth > 0));
}

#[tokio::test]
async fn refusals_alone_are_definite() {
    let cluster = one_range(|_, _| not_leader(0)).await;
    let refused = cluster.client.put("k", "v").await.unwrap_err();
    assert!(refused.is_definite());
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    assert!(cluster.state.asked().len() > 3);

    let cluster = one_range(|_, _| error(Code::Busy)).await;
    assert_eq!(cluster.client.put("k", "v").await.unwrap_err().kind, ErrorKind::Busy);
}

#[tokio::test]
async fn an_answer_that_says_nothing_leaves_a_write_open() {
    for code in [Code::Internal, Code::Unspecified] {
        let cluster = one_range(move |_, _| error(code)).await;
        let open = cluster.client.put("k", "v").await.unwrap_err();
        assert_eq!(open.kind, ErrorKind::Indeterminate, "{code:?}");
    }
}

#[tokio::test]
async fn no_refusal_makes_a_write_definite_that_was_open_before() {
    for refusal in [Code::NotLeader, Code::Expired, Code::Stale, Code::DiskFull, Code::Busy] {
        let cluster = one_range(move |n, _| match n {
            0 => Reply::HangUp,
            _ => error(refusal),
        })
        .await;
        let open = cluster.client.put("k", "v").await.unwrap_err();
        assert_eq!(open.kind, ErrorKind::Indeterminate, "after {refusal:?}");
        assert!(identities(&cluster).iter().all(|identity| *identity == (1, 1)));
    }
}

#[tokio::test]
async fn a_first_attempt_that_expired_is_sent_again_with_a_newer_birth() {
    let cluster = one_range(|n, asked| match n {
        0 => error(Code::Expired),
        _ => done(asked, 2000),
    })
    .await;
    cluster.client.put("k", "v").await.unwrap();
    let asked = cluster.state.asked();
    assert_eq!(identities(&cluster), [(1, 1); 2]);
    assert!(asked[1].write().birth > asked[0].write().birth);
}

#[tokio::test]
async fn what_a_starting_node_did_not_take_is_definite() {
    let cluster = one_range(|_, asked| done(asked, 2000)).await;
    cluster.state.is_starting.store(true, Ordering::SeqCst);
    let refused = cluster.client.put("k", "v").await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    assert!(cluster.state.asked().is_empty());
    cluster.state.is_starting.store(false, Ordering::SeqCst);
    cluster.client.put("k", "v").await.unwrap();
}

#[tokio::test]
async fn the_floor_waits_for_the_oldest_write_that_is_not_answered() {
    let cluster = one_range(|_, asked| match asked.write().ops[0].key.as_ref() {
        b"silent" => Reply::Silence,
        _ => done(asked, 2000),
    })
    .await;
    let client = &cluster.client;
    client.put("first", "v").await.unwrap();
    let others = async {
        while !cluster.state.asked().iter().any(|a| a.write().seq == 2) {
            tokio::task::yield_now().await;
        }
        client.put("third", "v").await.unwrap();
        client.put("fourth", "v").await.unwrap();
    };
    let (open, ()) = tokio::join!(client.put("silent", "v"), others);
    assert_eq!(open.unwrap_err().kind, ErrorKind::Indeterminate);
    client.put("fifth", "v").await.unwrap();
    let floor = |seq| {
        let asked = cluster.state.asked();
        asked.iter().rfind(|a| a.write().seq == seq).unwrap().write().floor
    };
    assert_eq!([floor(1), floor(2), floor(3), floor(4), floor(5)], [1, 2, 2, 2, 5]);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_the_write_is_not_taken_for_a_definite_failure() {
    let cluster = one_range(|_, asked| {
        let mut doubled = asked.clone();
        if let isotherm_proto::internal::range_request::Body::Write(write) = &mut doubled.body {
            write.ops.push(write.ops[0].clone());
        }
        done(&doubled, 2000)
    })
    .await;
    assert!(!cluster.client.put("k", "v").await.unwrap_err().is_definite());
}

#[tokio::test]
async fn bad_input_is_refused_before_anything_is_sent() {
    use isotherm_types::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
    let cluster = one_range(|_, asked| done(asked, 2000)).await;
    let client = &cluster.client;
    let kind = |refused: Result<_, isotherm_client::ClientError>| refused.unwrap_err().kind;
    assert_eq!(kind(client.put("", "v").await), ErrorKind::Invalid);
    let (key, value) = (vec![b'k'; KEY_BYTES_MAX + 1], vec![b'v'; VALUE_BYTES_MAX + 1]);
    assert_eq!(kind(client.put(key, "v").await), ErrorKind::TooLarge);
    assert_eq!(kind(client.put("k", value).await), ErrorKind::TooLarge);
    assert!(cluster.state.asked().is_empty());
}
