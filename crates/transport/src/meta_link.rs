//! The way to the meta service's leader.

use crate::channel::channel;
use isotherm_proto::WireError;
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::meta_service_client::MetaServiceClient;
use isotherm_proto::internal::{self as pb, MembersRequest};
use isotherm_types::limits;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::transport::Channel;

const MEMBERS_TIMEOUT: Duration = Duration::from_secs(1);

/// A client of one member.
pub type MetaClient = MetaServiceClient<Channel>;

/// Finds the leader, and remembers it until it is said to be another.
pub struct MetaLink {
    seeds: Vec<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    channels: BTreeMap<String, Channel>,
    leader: Option<String>,
    members: Vec<(u64, String)>,
}

impl MetaLink {
    /// Over the addresses of some members.
    pub fn new(seeds: Vec<String>) -> Self {
        Self { seeds, state: Mutex::default() }
    }

    fn client(&self, address: &str) -> Result<MetaClient, WireError> {
        let mut state = self.state.lock();
        let found = match state.channels.get(address) {
            Some(found) => found.clone(),
            None => {
                let made = channel(address)
                    .map_err(|e| WireError::new(Code::Unavailable, e.to_string()))?;
                state.channels.insert(address.to_owned(), made.clone());
                made
            }
        };
        Ok(MetaServiceClient::new(found)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX))
    }

    /// Whoever was last asked is not, or not any more, the leader.
    pub fn forget_leader(&self) {
        self.state.lock().leader = None;
    }

    /// Takes note of an answer: a member that does not lead says who does.
    pub fn check(&self, error: Option<pb::Error>) -> Result<(), WireError> {
        let Some(error) = error else { return Ok(()) };
        if error.code() == Code::NotLeader {
            let mut state = self.state.lock();
            let leader = state.members.iter().find(|(id, _)| *id == error.leader_node);
            state.leader = leader.map(|(_, address)| address.clone());
        }
        Err(error.into())
    }

    /// Takes note of who the members are; connections to those of the past end.
    fn take_members(&self, members: Vec<(u64, String)>) {
        let mut state = self.state.lock();
        let State { channels, leader, .. } = &mut *state;
        channels.retain(|address, _| {
            self.seeds.contains(address)
                || leader.as_ref() == Some(address)
                || members.iter().any(|(_, of)| of == address)
        });
        state.members = members;
    }

    /// A client of the leader, asking around if it is not known.
    pub async fn leader(&self) -> Result<MetaClient, WireError> {
        let known = self.state.lock().leader.clone();
        if let Some(address) = known {
            return self.client(&address);
        }
        let mut addresses = self.seeds.clone();
        for (_, address) in &self.state.lock().members {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        let mut last = "no member was asked".to_owned();
        for address in addresses {
            let mut client = self.client(&address)?;
            let asked = client.members(MembersRequest {});
            let answer = match tokio::time::timeout(MEMBERS_TIMEOUT, asked).await {
                Ok(Ok(answer)) => answer.into_inner(),
                Ok(Err(status)) => {
                    last = format!("{address}: {}", status.message());
                    continue;
                }
                Err(_) => {
                    last = format!("{address}: no answer in time");
                    continue;
                }
            };
            let members: Vec<_> = answer.members.into_iter().map(|m| (m.id, m.address)).collect();
            let leader = members.iter().find(|(id, _)| *id == answer.leader);
            let leader = leader.map(|(_, address)| address.clone());
            self.take_members(members);
            if let Some(leader) = leader {
                self.state.lock().leader = Some(leader.clone());
                return self.client(&leader);
            }
            last = format!("{address}: no leader is known");
        }
        Err(WireError::new(Code::Unavailable, format!("no leader of the meta service: {last}")))
    }
}
