//! Whether a member with an empty directory may vote.
//!
//! Either nobody has anything: the service begins, and somebody gives it its members. Or the others
//! know a cluster: then this member had a directory once and lost it, and with it entries that it
//! acknowledged and votes that it granted. It counts as lost until it has all that could have been
//! decided with it: it takes nothing and grants nothing before ALL others say the same of who leads
//! (a leader that one of them does not know could have been elected with a vote that is forgotten
//! here), and it votes only when it has the log that this leader has. Until then it is marked in its
//! log, so that a restart does not take it for whole.

use crate::machine::MetaMachine;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::meta_service_client::MetaServiceClient;
use isotherm_raftstore::{Group, Part};
use isotherm_storage::{LogEngine, StorageError};
use isotherm_transport::connect;
use isotherm_types::NodeId;
use std::sync::Arc;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(100);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Said again after so many looks, while nothing changes.
const SAY_EVERY: u32 = 100;
/// A record of the log engine: `LEARNS` while the member that has it is not whole.
const RECORD: &str = "part";
const LEARNS: &[u8] = &[1];
const VOTES: &[u8] = &[2];

/// How a member with the log `log` begins; `is_new`: nothing was ever written there.
pub(super) fn part_at_start(log: &dyn LogEngine, is_new: bool) -> Result<Part, StorageError> {
    let is_marked = log.node_state(RECORD)?.is_some_and(|record| record == LEARNS);
    Ok(if is_new || is_marked { Part::None } else { Part::Votes })
}

/// What the others say.
#[derive(Debug, PartialEq, Eq)]
enum Others {
    /// Not all of them answered, or they do not agree.
    Undecided(String),
    /// None of them knows a cluster.
    New,
    /// There is a cluster, and all agree that this member leads it; its log ends there.
    Led { leader: NodeId, last_index: u64 },
}

/// Takes this member in. `others` are all other members.
pub(super) struct Admission {
    pub group: Arc<Group<MetaMachine>>,
    pub log: Arc<dyn LogEngine>,
    pub others: Vec<(NodeId, String)>,
}

impl Admission {
    /// Returns when the member votes; whether the service is new, and is to be given its members.
    pub async fn run(self) -> Result<bool, StorageError> {
        let mut looks = 0;
        loop {
            match self.ask().await {
                Others::New => {
                    self.group.take(Part::Votes);
                    return Ok(true);
                }
                Others::Led { leader, last_index } => {
                    tracing::warn!(
                        leader = leader.get(),
                        last_index,
                        "this member's directory is empty, but its cluster exists: it votes again \
                         when it has learned everything"
                    );
                    self.mark(LEARNS).await?;
                    self.group.take(Part::Learns);
                    self.group.wait_applied(last_index).await;
                    self.mark(VOTES).await?;
                    self.group.take(Part::Votes);
                    tracing::info!(leader = leader.get(), last_index, "this member votes again");
                    return Ok(false);
                }
                Others::Undecided(why) => {
                    if looks % SAY_EVERY == 0 {
                        tracing::info!(why, "this member is empty and waits for all others");
                    }
                    looks += 1;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask(&self) -> Others {
        let asked = self.others.iter().map(|(id, address)| async move {
            let answer = tokio::time::timeout(ASK_TIMEOUT, ask_members(address)).await;
            (*id, answer.unwrap_or_else(|_| Err("no answer in time".to_owned())))
        });
        weigh(&futures::future::join_all(asked).await)
    }

    async fn mark(&self, record: &'static [u8]) -> Result<(), StorageError> {
        let log = self.log.clone();
        let put = move || log.put_node_state(RECORD, record.to_vec());
        let done = tokio::task::spawn_blocking(put).await;
        done.unwrap_or_else(|e| Err(StorageError::Io(std::io::Error::other(e))))
    }
}

/// What the member at `address` says of itself and of who leads.
pub(crate) async fn ask_members(address: &str) -> Result<pb::MembersResponse, String> {
    let channel = connect(address).await.map_err(|e| e.to_string())?;
    let answer = MetaServiceClient::new(channel).members(pb::MembersRequest {}).await;
    Ok(answer.map_err(|status| status.message().to_owned())?.into_inner())
}

type Answers = [(NodeId, Result<pb::MembersResponse, String>)];

fn weigh(answers: &Answers) -> Others {
    let mut heard = Vec::new();
    for (id, answer) in answers {
        match answer {
            Ok(answer) if answer.answered_by == id.get() => heard.push(answer),
            Ok(answer) => {
                let (id, by) = (id.get(), answer.answered_by);
                return Others::Undecided(format!("at the address of member {id} is member {by}"));
            }
            Err(why) => return Others::Undecided(format!("member {}: {why}", id.get())),
        }
    }
    // One that crashed early does not know its cluster yet, but has something in its log.
    if heard.iter().all(|answer| answer.cluster_id == 0 && answer.last_log_index == 0) {
        return Others::New;
    }
    let Some(first) = heard.first() else { return Others::New };
    let said = |a: &pb::MembersResponse| (a.cluster_id, a.leader, a.term);
    let agree = |a: &&pb::MembersResponse| said(a) == said(first);
    let leader = heard.iter().find(|a| a.answered_by == first.leader);
    match leader {
        Some(leader) if heard.iter().all(agree) => {
            Others::Led { leader: NodeId(leader.leader), last_index: leader.last_log_index }
        }
        _ => Others::Undecided("the others do not agree on a leader".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(by: u64, cluster: u64, leader: u64, term: u64) -> pb::MembersResponse {
        let last_log_index = if cluster == 0 { 0 } else { by * 100 };
        let members = Vec::new();
        pb::MembersResponse {
            cluster_id: cluster,
            leader,
            term,
            members,
            answered_by: by,
            last_log_index,
            ..Default::default()
        }
    }

    fn weighed(answers: &[pb::MembersResponse]) -> Others {
        let all: Vec<_> = answers.iter().map(|a| (NodeId(a.answered_by), Ok(a.clone()))).collect();
        weigh(&all)
    }

    #[test]
    fn the_service_is_new_only_if_all_others_say_so() {
        let crashed = pb::MembersResponse { last_log_index: 1, ..answer(3, 0, 0, 1) };
        assert!(matches!(weighed(&[answer(2, 0, 0, 0), crashed]), Others::Undecided(_)));
        let twice = [(NodeId(2), Ok(answer(2, 0, 0, 0))), (NodeId(3), Ok(answer(2, 0, 0, 0)))];
        assert!(matches!(weigh(&twice), Others::Undecided(_)));
        assert_eq!(weighed(&[answer(2, 0, 0, 0), answer(3, 0, 0, 1)]), Others::New);
        let silent = [
            (NodeId(2), Ok(answer(2, 0, 0, 0))),
            (NodeId(3), Err("connection refused".to_owned())),
        ];
        assert_eq!(weigh(&silent), Others::Undecided("member 3: connection refused".to_owned()));
    }

    #[test]
    fn all_others_agree_on_a_leader_before_anything_is_learned_of_it() {
        let led = Others::Led { leader: NodeId(2), last_index: 200 };
        assert_eq!(weighed(&[answer(2, 9, 2, 4), answer(3, 9, 2, 4)]), led);
        for other in [answer(3, 9, 3, 5), answer(3, 9, 0, 5), answer(3, 0, 0, 0)] {
            let weighed = weighed(&[answer(2, 9, 2, 4), other]);
            assert!(matches!(weighed, Others::Undecided(_)), "{weighed:?}");
        }
    }
}
