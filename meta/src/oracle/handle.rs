//! The oracle of one member, as the rest of the process sees it.

use super::extender;
use super::faults::Faults;
use super::issuer::Issuer;
use super::rounds;
use crate::machine::MetaMachine;
use isotherm_proto::WireError;
use isotherm_proto::internal::error::Code;
use isotherm_raftstore::{Group, GroupError};
use isotherm_task::until;
use isotherm_types::{NodeId, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most timestamps in one answer.
pub const COUNT_MAX: u32 = 10_000;
/// Requests that may wait for a round.
const QUEUE: usize = 4096;

/// Why no timestamp was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// This member does not lead.
    NotLeader(Option<NodeId>),
    /// Too many wait already.
    Busy,
    /// No quorum answered, or no window could be had, in time.
    Unavailable(&'static str),
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::NotLeader { leader } => Self::NotLeader(leader),
            GroupError::Indeterminate | GroupError::TimedOut => {
                Self::Unavailable("no quorum of the meta service answered in time")
            }
            GroupError::DiskFull => Self::Unavailable("the disk of this meta member is full"),
            GroupError::Stopped => Self::Unavailable("this meta member is not running"),
        }
    }
}

impl From<Refusal> for WireError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotLeader(leader) => {
                let mut error = WireError::new(Code::NotLeader, "this meta member does not lead");
                error.0.leader_node = leader.map_or(0, NodeId::get);
                error
            }
            Refusal::Busy => {
                let mut error = WireError::new(Code::Busy, "too many requests for timestamps");
                error.0.retry_after_ms = 20;
                error
            }
            Refusal::Unavailable(why) => WireError::new(Code::Unavailable, why),
        }
    }
}

/// One request for consecutive timestamps.
pub(super) struct Request {
    pub(super) count: u32,
    pub(super) reply: oneshot::Sender<Result<Timestamp, Refusal>>,
}

/// What the tasks of the oracle share.
pub(super) struct Shared {
    pub(super) me: NodeId,
    pub(super) group: Arc<Group<MetaMachine>>,
    pub(super) issuer: Mutex<Issuer>,
    pub(super) faults: Faults,
    /// Asks for an extension before it is due.
    pub(super) short: Notify,
    /// Counts extensions, to wait for the next.
    pub(super) extended: watch::Sender<u64>,
}

/// Hands out timestamps. Cheap to clone.
#[derive(Clone)]
pub struct Oracle {
    queue: mpsc::Sender<Request>,
    pub(super) shared: Arc<Shared>,
}

impl Oracle {
    /// Starts its tasks; they end with `stop`.
    pub fn start(
        me: NodeId,
        group: Arc<Group<MetaMachine>>,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let shared = Arc::new(Shared {
            me,
            group,
            issuer: Mutex::new(Issuer::new(Instant::now())),
            faults: Faults::from_env(),
            short: Notify::new(),
            extended: watch::Sender::new(0),
        });
        let (queue, requests) = mpsc::channel(QUEUE);
        let collector = rounds::collect(shared.clone(), requests, tasks.clone(), stop.clone());
        tasks.spawn(until("oracle rounds", stop.clone(), collector));
        let extend = extender::run(shared.clone(), stop.clone());
        tasks.spawn(until("window of timestamps", stop, extend));
        Self { queue, shared }
    }

    /// Asks for `count` (1 to [`COUNT_MAX`]) consecutive timestamps. They are requested when this
    /// returns; the answer, the first of them, comes later.
    pub fn request(&self, count: u32) -> oneshot::Receiver<Result<Timestamp, Refusal>> {
        let (reply, answer) = oneshot::channel();
        let request = Request { count: count.clamp(1, COUNT_MAX), reply };
        if let Err(refused) = self.queue.try_send(request) {
            let (refusal, request) = match refused {
                mpsc::error::TrySendError::Full(request) => (Refusal::Busy, request),
                mpsc::error::TrySendError::Closed(request) => {
                    (Refusal::Unavailable("this meta member is stopping"), request)
                }
            };
            // The receiver is in our hands.
            let _ = request.reply.send(Err(refusal));
        }
        answer
    }

    /// `count` consecutive timestamps, of which this is the first.
    pub async fn timestamps(&self, count: u32) -> Result<Timestamp, Refusal> {
        let stopping = Err(Refusal::Unavailable("this meta member is stopping"));
        self.request(count).await.unwrap_or(stopping)
    }

    /// How far timestamps are from the wall clock, if that is worth knowing. Negative: behind.
    pub fn skew_secs(&self) -> Option<i64> {
        self.shared.issuer.lock().pace.skew_secs()
    }
}
