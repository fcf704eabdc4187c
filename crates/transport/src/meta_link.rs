//! The way to the meta service's leader.

use crate::channel::channel;
use crate::error::status_text;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use isotherm_proto::WireError;
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::meta_service_client::MetaServiceClient;
use isotherm_proto::internal::{self as pb, MembersRequest};
use isotherm_types::limits;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

/// How long members may take to say who leads.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(1);
/// How much longer the others may take once one has named a leader.
const OTHERS_WAIT: Duration = Duration::from_millis(150);

/// A request that was given up after this long was not answered, rather than not needed.
const SILENT_AFTER: Duration = Duration::from_millis(300);

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
    /// Whether the last request is unanswered, and why if that is known.
    trouble: Option<String>,
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

    /// What is wrong with the way to the leader, if its last request was not answered.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state.lock();
        let why = state.trouble.as_ref()?;
        Some(format!("the meta service ({}) does not answer: {why}", self.seeds.join(", ")))
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

    /// A client of the leader, asking all members at once if it is not known.
    ///
    /// The answer of the highest term counts: a member that is cut off from the others may still name
    /// itself, or the leader of an earlier term. One that does not answer is not waited for once another
    /// has.
    pub async fn leader(&self) -> Result<MetaClient, WireError> {
        let known = self.state.lock().leader.clone();
        if let Some(address) = known {
            return self.client(&address);
        }
        let addresses = self.addresses();
        let mut asked: FuturesUnordered<_> =
            addresses.iter().map(|address| self.whom(address)).collect();
        let mut best: Option<Told> = None;
        let mut why_not = Vec::new();
        let mut deadline = Instant::now() + MEMBERS_TIMEOUT;
        while let Ok(Some(answer)) = tokio::time::timeout_at(deadline, asked.next()).await {
            let (address, told) = match answer {
                Ok(told) => told,
                Err(why) => {
                    why_not.push(why);
                    continue;
                }
            };
            let Some(told) = told else {
                why_not.push(format!("{address}: no leader is known"));
                continue;
            };
            if best.as_ref().is_none_or(|best| best.rank() < told.rank()) {
                best = Some(told);
            }
            deadline = deadline.min(Instant::now() + OTHERS_WAIT);
        }
        match best {
            Some(Told { leader, .. }) => {
                let client = self.client(&leader)?;
                self.state.lock().leader = Some(leader);
                Ok(client)
            }
            None => {
                if why_not.is_empty() {
                    why_not.push("no member answered in time".to_owned());
                }
                let why = format!("no leader of the meta service: {}", why_not.join("; "));
                Err(WireError::new(Code::Unavailable, why))
            }
        }
    }

    /// Asks the leader, within `limit`. A leader that does not answer is forgotten, also when the caller
    /// gives up before the limit: the next request looks for another one.
    pub async fn ask<T, F>(
        &self,
        limit: Duration,
        call: impl FnOnce(MetaClient) -> F,
    ) -> Result<T, WireError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let unavailable = |why: String| WireError::new(Code::Unavailable, why);
        let mut guard = ForgetUnlessAnswered::new(self);
        let asking = async {
            let client = self.leader().await?;
            guard.has_leader = true;
            let answer = call(client).await;
            let answer =
                answer.map_err(|s| unavailable(format!("meta service: {}", status_text(&s))))?;
            Ok(answer.into_inner())
        };
        let late = |_| Err(unavailable("the meta service did not answer in time".to_owned()));
        let answer = tokio::time::timeout(limit, asking).await.unwrap_or_else(late);
        guard.end(answer.as_ref().err());
        answer
    }

    /// The seeds, and members that others named.
    fn addresses(&self) -> Vec<String> {
        let mut addresses = self.seeds.clone();
        for (_, address) in &self.state.lock().members {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
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

    /// What one member says of the leader, if it knows of one; its members are noted.
    async fn whom<'a>(&self, address: &'a str) -> Result<(&'a str, Option<Told>), String> {
        let mut client = self.client(address).map_err(|e| e.0.message)?;
        let answer = client.members(MembersRequest {}).await;
        let answer = answer.map_err(|status| format!("{address}: {}", status_text(&status)))?;
        let pb::MembersResponse { term, leader, members, .. } = answer.into_inner();
        let members: Vec<_> = members.into_iter().map(|m| (m.id, m.address)).collect();
        let named = members.iter().find(|(id, _)| *id == leader);
        let told = named.map(|(_, address)| Told { term, id: leader, leader: address.clone() });
        if !members.is_empty() {
            self.take_members(members);
        }
        Ok((address, told))
    }
}

/// Forgets the leader when it is dropped before an answer has come, and notes the trouble.
struct ForgetUnlessAnswered<'a> {
    link: &'a MetaLink,
    begun: Instant,
    has_leader: bool,
    has_answered: bool,
}

impl<'a> ForgetUnlessAnswered<'a> {
    fn new(link: &'a MetaLink) -> Self {
        Self { link, begun: Instant::now(), has_leader: false, has_answered: false }
    }

    fn end(mut self, error: Option<&WireError>) {
        self.has_answered = error.is_none();
        self.link.state.lock().trouble = error.map(|error| error.0.message.clone());
        // What there is to say was said.
        self.begun = Instant::now();
    }
}

impl Drop for ForgetUnlessAnswered<'_> {
    fn drop(&mut self) {
        if self.has_leader && !self.has_answered {
            self.link.forget_leader();
        }
        if !self.has_answered && self.begun.elapsed() >= SILENT_AFTER {
            let why = || "its caller waited for it in vain".to_owned();
            self.link.state.lock().trouble.get_or_insert_with(why);
        }
    }
}

/// Who leads, as one member said.
struct Told {
    term: u64,
    id: u64,
    leader: String,
}

impl Told {
    /// One term may have several leaders, each with a higher id than the one before.
    fn rank(&self) -> (u64, u64) {
        (self.term, self.id)
    }
}

#[cfg(test)]
mod tests;
