//! Carrying out one step on the leader of a range.

use super::plan::Step;
use crate::member::Meta;
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::range_service_client::RangeServiceClient;
use isotherm_proto::internal::replica_service_client::ReplicaServiceClient;
use isotherm_transport::channel;
use isotherm_types::{NodeId, RangeDescriptor};
use std::future::Future;
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Response, Status};

/// Longer than a node works on it.
const TIMEOUT: Duration = Duration::from_secs(12);
/// Nodes that are asked before it is left to the next try.
const HOPS_MAX: usize = 5;

impl Meta {
    /// Has the leader of `range` carry out `step`, decided by this descriptor of it: a range that
    /// has changed since refuses. What the node says of the range is offered to the map.
    ///
    /// The one way in which anything orders a change of a range's members.
    pub(crate) async fn execute(
        &self,
        range: &RangeDescriptor,
        step: &Step,
    ) -> Result<(), WireError> {
        let after = self.ask_leader(range, TIMEOUT, |node| self.ask(node, range, step)).await?;
        self.learn(after);
        Ok(())
    }

    /// Asks the leader of `range`, following what nodes say of who that is. Each node has `limit` to
    /// answer, and all of them together have twice as long.
    pub(super) async fn ask_leader<T, F>(
        &self,
        range: &RangeDescriptor,
        limit: Duration,
        ask_node: impl Fn(NodeId) -> F,
    ) -> Result<T, WireError>
    where
        F: Future<Output = Result<T, WireError>>,
    {
        let (known, voters) = {
            let (registry, now) = (self.registry.lock(), Instant::now());
            let is_alive = |node: &NodeId| registry.state(*node, now).counts_as_alive();
            // What led it is not asked when it is down: it would be waited for.
            let known = registry.leader(range.id).map(|leader| leader.node).filter(is_alive);
            let mut voters: Vec<NodeId> = range.voters().map(|r| r.node).collect();
            voters.sort_by_key(|node| !is_alive(node));
            (known, voters)
        };
        let deadline = Instant::now() + limit * 2;
        let mut turn = voters.into_iter().cycle();
        let mut ask = known.or_else(|| turn.next());
        let mut last = WireError::new(Code::Unavailable, "the range has no voters");
        for _ in 0..HOPS_MAX {
            let left = deadline.saturating_duration_since(Instant::now()).min(limit);
            let Some(node) = ask.filter(|_| !left.is_zero()) else { return Err(last) };
            let asked = tokio::time::timeout(left, ask_node(node)).await;
            let late = || WireError::new(Code::Indeterminate, "the node did not answer in time");
            match asked.unwrap_or_else(|_| Err(late())) {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    self.learn(error.0.descriptors.clone());
                    let hint = NodeId(error.0.leader_node);
                    ask = match error.code() {
                        Code::NotLeader if hint.get() != 0 && hint != node => Some(hint),
                        Code::NotLeader | Code::RangeNotFound | Code::Unavailable => turn.next(),
                        _ => return Err(error),
                    };
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn ask(
        &self,
        node: NodeId,
        range: &RangeDescriptor,
        step: &Step,
    ) -> Result<Vec<pb::Descriptor>, WireError> {
        let channel = self.channel(node)?;
        let (range_id, epoch) = (range.id.get(), Some(range.epoch.into()));
        let mut members = ReplicaServiceClient::new(channel.clone());
        match step {
            Step::AddLearner { node, replica } => {
                let (node, replica_id) = (node.get(), replica.get());
                let request = pb::AddLearnerRequest { range_id, epoch, node, replica_id };
                changed(members.add_learner(request)).await
            }
            Step::ReplaceVoter { promote, drop } => {
                let (promote, drop) = (promote.get(), drop.get());
                let request = pb::ReplaceVoterRequest { range_id, epoch, promote, drop };
                changed(members.replace_voter(request)).await
            }
            Step::RemoveLearner { replica } => {
                let replica_id = replica.get();
                let request = pb::RemoveLearnerRequest { range_id, epoch, replica_id };
                changed(members.remove_learner(request)).await
            }
            Step::TransferLeader { to } => {
                let request = pb::TransferLeaderRequest { range_id, to_node: to.get() };
                let mut ranges = RangeServiceClient::new(channel);
                ranges.transfer_leader(request).await.map_err(|status| detailed(&status))?;
                Ok(Vec::new())
            }
            Step::Split { keys } => {
                let request = pb::SplitRangeRequest { range_id, epoch, keys: keys.clone() };
                let mut ranges = RangeServiceClient::new(channel);
                let done = ranges.split_range(request).await.map_err(|status| detailed(&status))?;
                Ok(done.into_inner().descriptors)
            }
        }
    }

    pub(super) fn channel(&self, node: NodeId) -> Result<Channel, WireError> {
        let address = {
            let machine = self.group.machine().read();
            machine.nodes().get(&node).map(|record| record.details.address.clone())
        };
        let unknown =
            || WireError::new(Code::Unavailable, format!("node {node} is not registered"));
        let made = channel(&address.ok_or_else(unknown)?);
        made.map_err(|e| WireError::new(Code::Unavailable, e.to_string()))
    }

    /// Offers to the map what a node said of a range.
    pub(super) fn learn(&self, said: Vec<pb::Descriptor>) {
        let descriptors = said.into_iter().filter_map(|d| RangeDescriptor::try_from(d).ok());
        let machine = self.group.machine().read();
        let mut pool = self.pool.lock();
        let mut is_news = false;
        for descriptor in descriptors {
            is_news |= pool.offer(machine.ranges(), descriptor);
        }
        if is_news {
            self.news.notify_one();
        }
    }
}

async fn changed(
    asking: impl Future<Output = Result<Response<pb::ChangeMembersResponse>, Status>>,
) -> Result<Vec<pb::Descriptor>, WireError> {
    let answer = asking.await.map_err(|status| detailed(&status))?.into_inner();
    match answer.error {
        Some(error) => Err(error.into()),
        None => Ok(answer.descriptor.into_iter().collect()),
    }
}

/// The error in the details of a status, or one that says that the node was not reached.
pub(super) fn detailed(status: &Status) -> WireError {
    use prost::Message;
    match pb::Error::decode(status.details()) {
        Ok(error) if !status.details().is_empty() => error.into(),
        _ => WireError::new(Code::Unavailable, status.message()),
    }
}
