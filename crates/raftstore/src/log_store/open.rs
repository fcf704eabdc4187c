//! Opening a log: what the engine has of it.

use super::LogStore;
use super::sizes::LogSizes;
use super::state::{Shared, State};
use crate::entry_codec::{decode_entry, decode_message};
use crate::replica::seed_log_id;
use crate::type_config::LogId;
use isotherm_storage::{LogEngine, ReplicaKey, StateKind, StorageError};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use thiserror::Error;
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
            is_damaged: AtomicBool::new(false),
            flushed: watch::Sender::new(durable),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// Entries are missing between those that a snapshot covers and the first one.
#[derive(Debug, Error)]
#[error("the log of replica {key} starts at {first}, after {expected}: entries are lost")]
struct Hole {
    key: ReplicaKey,
    first: u64,
    expected: u64,
}

/// Whether a log could not be opened because what is on disk is not what was written there.
pub fn is_damage(error: &io::Error) -> bool {
    let Some(inner) = error.get_ref() else { return false };
    inner.is::<Hole>() || inner.downcast_ref().is_some_and(StorageError::is_damage)
}

/// Whether the log of `key` ends before `applied`, which was in it when it was applied. Blocking.
///
/// A range that begins has an applied state and no log, and a snapshot's purge is in the log before its
/// install counts as done (`replica/snapshot.rs`): everything else comes from the log.
pub fn lacks(engine: &dyn LogEngine, key: ReplicaKey, applied: Option<LogId>) -> io::Result<bool> {
    let Some(applied) = applied.filter(|applied| *applied != seed_log_id()) else {
        return Ok(false);
    };
    let last = recover(engine, key)?.last;
    Ok(last.is_none_or(|last| last.index < applied.index))
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
            return Err(io::Error::other(Hole { key, first, expected }));
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
