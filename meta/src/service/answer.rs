//! Turning results into answers that carry errors.

use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use std::future::Future;
use std::time::Duration;
use tonic::{Response, Status};

/// Longer than the group itself waits for a quorum.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An answer that can be an error.
pub(super) trait Answer: Default {
    /// What it means that no answer came in time: a request that changes something may have.
    const LATE: Code;
    /// The error as this answer.
    fn refusal(error: pb::Error) -> Self;
}

macro_rules! answers {
    ($($answer:ident: $late:ident),* $(,)?) => {$(
        impl Answer for pb::$answer {
            const LATE: Code = Code::$late;
            fn refusal(error: pb::Error) -> Self {
                let mut refusal = Self::default();
                refusal.error = Some(error);
                refusal
            }
        }
    )*};
}

answers! {
    RegisterNodeResponse: Indeterminate,
    HeartbeatResponse: Unavailable,
    ReportDamageResponse: Unavailable,
    GetRangesResponse: Unavailable,
    ListNodesResponse: Unavailable,
    AllocateIdsResponse: Indeterminate,
    GetSettingsResponse: Unavailable,
    SetSettingResponse: Indeterminate,
    StatusResponse: Unavailable,
    MoveRangeResponse: Indeterminate,
    MergeRangesResponse: Indeterminate,
    ListOperationsResponse: Unavailable,
    CancelOperationResponse: Indeterminate,
    HoldSnapshotResponse: Unavailable,
    ReleaseSnapshotResponse: Unavailable,
    ExplainRangeResponse: Unavailable,
    HotResponse: Unavailable,
    SetIntentResponse: Indeterminate,
    UpgradeStatusResponse: Unavailable,
    FinalizeUpgradeResponse: Indeterminate,
}

/// Waits for an answer, but not for ever.
pub(super) async fn answer<A: Answer>(
    answering: impl Future<Output = Result<A, WireError>>,
) -> Result<Response<A>, Status> {
    let late = || WireError::new(A::LATE, "the meta service did not answer in time");
    let answered = tokio::time::timeout(TIMEOUT, answering).await;
    let answer = answered.unwrap_or_else(|_| Err(late()));
    Ok(Response::new(answer.unwrap_or_else(|error| A::refusal(error.into()))))
}
