//! Reads change nothing: they are repeated whatever happened to an attempt.

use crate::scripted::{Reply, Scripted, error, found, range};
use isotherm_client::ErrorKind;
use isotherm_proto::internal::error::Code;

#[tokio::test]
async fn a_read_whose_stream_was_lost_is_repeated() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |n, _| match n {
        0 => Reply::HangUp,
        1 => Reply::Silence,
        2 => error(Code::Indeterminate),
        3 => error(Code::Busy),
        _ => found("v", 5),
    })
    .await;
    let row = cluster.client.get("k").await.unwrap().unwrap();
    assert_eq!(row.value, "v");
    assert_eq!(cluster.state.asked().len(), 5);
}

#[tokio::test]
async fn a_final_refusal_is_not_repeated() {
    for (code, kind) in [
        (Code::SnapshotTooOld, ErrorKind::SnapshotTooOld),
        (Code::TsTooNew, ErrorKind::TsTooNew),
        (Code::Invalid, ErrorKind::Invalid),
    ] {
        let cluster = Scripted::start(vec![range(1, "", "", 1)], move |_, _| error(code)).await;
        let refused = cluster.client.get("k").await.unwrap_err();
        assert_eq!((refused.kind, cluster.state.asked().len()), (kind, 1));
    }
}
