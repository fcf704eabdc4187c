//! The receiving side: frames into openraft, its answers back.

use super::method::Method;
use crate::entry_codec::{decode_append, decode_message, encode_message};
use crate::sender::{FrameSink, FrameSource};
use crate::sizes::Raftstore;
use crate::type_config::{Raft, TransferLeaderRequest, TypeConfig, VoteRequest};
use bytes::Bytes;
use futures::{SinkExt, StreamExt, pin_mut, stream};
use isotherm_storage::codec::Record;
use openraft::storage::RaftStateMachine;
use serde::Serialize;
use std::fmt::Display;
use std::time::Instant;

/// Whether this instance takes part in elections yet.
///
/// A lease that an earlier instance promised to a leader is not on disk: until it has surely run
/// out nothing is granted and nothing is taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VoteGate {
    /// Until when it does not; `None`: it does.
    pub hold_until: Option<Instant>,
    /// It does not, for as long as it has less than it may have promised.
    pub abstains: bool,
}

impl VoteGate {
    /// Why nothing may be granted now.
    pub fn check(self) -> Result<(), String> {
        if self.abstains {
            return Err("this member lost what it had and learns it again".into());
        }
        match self.hold_until {
            Some(until) if Instant::now() < until => {
                Err("votes are held back for a moment after a start".into())
            }
            _ => Ok(()),
        }
    }
}

/// The refusal of entries.
const NO_ROOM: &str = "the disk of this process is full";

/// Serves one call. An error is a refusal: whoever asked gets no answer of openraft's. Without room,
/// entries are refused; votes and heartbeats are small, and without them there is no leader.
pub async fn serve_call<S>(
    raft: &Raft<S>,
    method: Method,
    payload: Bytes,
    gate: VoteGate,
    has_room: bool,
) -> Result<Bytes, String>
where
    S: RaftStateMachine<TypeConfig>,
{
    match method {
        Method::AppendEntries => {
            let request = decode_append(&payload).map_err(|e| e.to_string())?;
            if !has_room && !request.entries.is_empty() {
                return Err(NO_ROOM.into());
            }
            answer(raft.append_entries(request).await)
        }
        Method::Vote => {
            gate.check()?;
            let request: VoteRequest = decode_message(&payload).map_err(|e| e.to_string())?;
            answer(raft.vote(by_rights(raft, request).await?).await)
        }
        Method::PreVote => {
            gate.check()?;
            let request: VoteRequest = decode_message(&payload).map_err(|e| e.to_string())?;
            answer(raft.pre_vote(request).await)
        }
        Method::TransferLeader => {
            gate.check()?;
            let request: TransferLeaderRequest =
                decode_message(&payload).map_err(|e| e.to_string())?;
            answer(raft.handle_transfer_leader(request).await)
        }
        Method::AppendStream | Method::Snapshot => Err(format!("{method:?} is not a call")),
    }
}

/// A candidate of a hand-over says so, and is voted for in spite of the lease of the leader that stood back
/// for it: one of an earlier term than the candidate's. The lease of another one, who leads in that
/// same term by now, is not that leader's to give away.
async fn by_rights<S>(raft: &Raft<S>, request: VoteRequest) -> Result<VoteRequest, String>
where
    S: RaftStateMachine<TypeConfig>,
{
    if !request.leadership_transfer {
        return Ok(request);
    }
    let term = raft.with_raft_state(|state| state.vote_ref().leader_id.term).await;
    let is_earlier = term.map_err(|e| e.to_string())? < request.vote.leader_id.term;
    Ok(VoteRequest { leadership_transfer: is_earlier, ..request })
}

fn answer<T: Serialize + Record<Raftstore>, E: Display>(
    response: Result<T, E>,
) -> Result<Bytes, String> {
    response.map(|r| encode_message(&r).into()).map_err(|e| e.to_string())
}

/// Serves a replication stream until the requests end and everything is answered, or until
/// openraft or the peer ends it, or entries come without `has_room` for them. `taken` is called after
/// each request.
pub async fn serve_stream<S>(
    raft: &Raft<S>,
    source: FrameSource,
    mut sink: FrameSink,
    has_room: impl Fn() -> bool + Send + Sync + 'static,
    taken: impl Fn(),
) where
    S: RaftStateMachine<TypeConfig>,
{
    let requests = stream::unfold((source, has_room), |(mut source, has_room)| async move {
        let frame = match source.next().await? {
            Ok(frame) => frame,
            Err(error) => {
                tracing::debug!(error = %error, "replication stream broke");
                return None;
            }
        };
        match decode_append(&frame) {
            Ok(request) if !request.entries.is_empty() && !has_room() => {
                tracing::debug!("{NO_ROOM}");
                None
            }
            Ok(request) => Some((request, (source, has_room))),
            Err(error) => {
                tracing::error!(error = %error, "an append request cannot be read");
                None
            }
        }
    });
    let answers = raft.stream_append(requests);
    pin_mut!(answers);
    while let Some(Ok(answer)) = answers.next().await {
        taken();
        if sink.send(encode_message(&answer).into()).await.is_err() {
            break;
        }
    }
}
