//! Opening a log: what the engine has of it.

use super::LogStore;
use super::sizes::LogSizes;
use super::state::{Shared, State};
use crate::entry_codec::{decode_entry, decode_message};
use crate::type_config::LogId;
use isotherm_storage::{LogEngine, ReplicaKey, StateKind};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::watch;

impl LogStore {
    /// Opens the log of `key` for the instance `own_generation`; it works for as long as
    /// `generation` says the same. Blocking, a few point reads.
    ///
    /// `applied` is what the state machine has: it is durable without the log, so indexes up to
    /// it count as flushed.
    pub fn open(
        engine: Arc<dyn LogEngine>,
        key: ReplicaKey,
        generation: Arc<AtomicU64>,
        own_generation: u64,
        applied: Option<LogId>,
    ) -> io::Result<Self> {
        let state = recover(&*engine, key)?;
        let durable = state.last.max(applied).map_or(0, |id| id.index);
        let shared = Shared {
            engine,
            key,
            generation,
            own_generation,
            state: Mutex::new(state),
            flushed: watch::Sender::new(durable),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

fn recover(engine: &dyn LogEngine, key: ReplicaKey) -> io::Result<State> {
    let stored = |kind| engine.state(key, kind).map_err(io::Error::other);
    let mut state = State::default();
    if let Some(bytes) = stored(StateKind::Vote)? {
        state.vote = Some(decode_message(&bytes)?);
    }
    if let Some(bytes) = stored(StateKind::Committed)? {
        state.committed = decode_message(&bytes)?;
    }
    match stored(StateKind::Purged)? {
        // Left by a truncation of everything.
        Some(bytes) if bytes.is_empty() => {}
        Some(bytes) => state.purged = Some(decode_message(&bytes)?),
        None => {}
    }
    state.last = state.purged;
    let last = engine.last(key).map_err(io::Error::other)?;
    if let Some(last) = last.filter(|last| last.index >= state.first_index()) {
        let first = engine.first_index(key).map_err(io::Error::other)?.unwrap_or(last.index);
        if state.purged.is_some() && first > state.first_index() {
            let expected = state.first_index();
            return Err(io::Error::other(format!(
                "the log of replica {} of {} starts at {first}, after {expected}: entries are lost",
                key.replica, key.range
            )));
        }
        state.start = first;
        let entry = decode_entry(last.bytes)?;
        if entry.log_id.index != last.index {
            return Err(io::Error::other("a log record lies under the wrong index"));
        }
        state.last = Some(entry.log_id);
        state.sizes = LogSizes::recovered(first, last.index);
    }
    let next = state.next_index();
    state.tail.restart(next);
    Ok(state)
}
