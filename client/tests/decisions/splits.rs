//! Splits that an operator asks for.

use crate::scripted::{Scripted, error, range};
use isotherm_client::ErrorKind;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use prost::Message;
use tonic::Status;

/// The refusal of a node, as it travels beside a stream.
fn refused(error: &pb::Error) -> Status {
    Status::with_details(tonic::Code::FailedPrecondition, "scripted", error.encode_to_vec().into())
}

async fn cluster(answers: Vec<Result<pb::SplitRangeResponse, Status>>) -> Scripted {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |_, _| error(Code::Unavailable)).await;
    cluster.state.splits.lock().unwrap().extend(answers);
    cluster
}

fn already_split() -> Status {
    refused(&pb::Error {
        code: Code::EpochMismatch.into(),
        descriptors: vec![range(1, "", "m", 2), range(2, "m", "", 2)],
        ..pb::Error::default()
    })
}

#[tokio::test]
async fn a_split_whose_answer_was_lost_is_found_to_be_done() {
    let lost = Status::unavailable("the connection broke");
    let cluster = cluster(vec![Err(lost), Err(already_split())]).await;
    let after = cluster.client.admin().split("m").await.unwrap();
    assert_eq!(after.iter().map(|d| d.id.get()).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_split_that_somebody_else_did_is_a_condition_that_does_not_hold() {
    let cluster = cluster(vec![Err(already_split())]).await;
    let refused = cluster.client.admin().split("m").await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Condition);
}
