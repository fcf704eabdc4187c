//! The applied state of a member: the machine, how far it is, and its snapshot on disk.

use crate::entry_codec::{decode_message, encode_message};
use crate::type_config::{Entry, EntryPayload, LogId, Reply, SnapshotMeta, StoredMembership};
use bytes::Bytes;
use isotherm_storage::{LogEngine, LogOp, ReplicaKey, StateKind};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// A state machine that fits into memory.
///
/// To ensure correctness: `apply` is a function of the state and its arguments alone, and
/// `restore(snapshot())` gives the same state; no clock, no randomness, no environment.
pub trait Machine: Send + Sync + 'static {
    /// Applies one command; returns what its proposer gets.
    fn apply(&mut self, term: u64, index: u64, command: &[u8]) -> Vec<u8>;

    /// The whole state as bytes.
    fn snapshot(&self) -> Vec<u8>;

    /// Replaces the whole state. On an error the state is as before.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String>;
}

/// The snapshot as it is on disk.
#[derive(Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) meta: SnapshotMeta,
    pub(crate) state: Bytes,
}

struct Progress {
    /// The instance that may change the state.
    generation: u64,
    log_id: Option<LogId>,
    membership: StoredMembership,
    saved: Option<(SnapshotMeta, Bytes)>,
}

/// The applied state. Every change runs under one lock, checks its generation and follows the
/// last one.
pub(super) struct Applied<M> {
    machine: Arc<RwLock<M>>,
    engine: Arc<dyn LogEngine>,
    key: ReplicaKey,
    /// The state before any entry, for an instance that starts again without a snapshot.
    initial: Vec<u8>,
    progress: Mutex<Progress>,
    index: watch::Sender<u64>,
}

impl<M: Machine> Applied<M> {
    /// Over `machine` as it is before any entry.
    pub(super) fn new(
        machine: Arc<RwLock<M>>,
        engine: Arc<dyn LogEngine>,
        key: ReplicaKey,
    ) -> Self {
        let initial = machine.read().snapshot();
        let progress = Progress {
            generation: 0,
            log_id: None,
            membership: StoredMembership::default(),
            saved: None,
        };
        let (progress, index) = (Mutex::new(progress), watch::Sender::new(0));
        Self { machine, engine, key, initial, progress, index }
    }

    pub(super) fn machine(&self) -> &Arc<RwLock<M>> {
        &self.machine
    }

    /// Index of the last applied entry.
    pub(super) fn index(&self) -> watch::Receiver<u64> {
        self.index.subscribe()
    }

    /// Refuses every older instance from now on.
    pub(super) fn set_owner(&self, generation: u64) {
        self.progress.lock().generation = generation;
    }

    /// The last applied entry and membership.
    pub(super) fn state(&self) -> (Option<LogId>, StoredMembership) {
        let progress = self.progress.lock();
        (progress.log_id, progress.membership.clone())
    }

    /// The snapshot on disk.
    pub(super) fn saved(&self) -> Option<(SnapshotMeta, Bytes)> {
        self.progress.lock().saved.clone()
    }

    /// Goes (back) to the snapshot on disk. Blocking.
    pub(super) fn load(&self) -> io::Result<()> {
        let bytes = self.engine.state(self.key, StateKind::Machine).map_err(io::Error::other)?;
        let saved = match bytes {
            Some(bytes) => Some(decode_message::<Saved>(&bytes)?),
            None => None,
        };
        let mut progress = self.progress.lock();
        let state = saved.as_ref().map_or(&self.initial[..], |saved| &saved.state);
        self.machine.write().restore(state).map_err(io::Error::other)?;
        let meta = saved.as_ref().map(|saved| saved.meta.clone()).unwrap_or_default();
        progress.log_id = meta.last_log_id;
        progress.membership = meta.last_membership;
        progress.saved = saved.map(|saved| (saved.meta, saved.state));
        self.index.send_replace(progress.log_id.map_or(0, |id| id.index));
        Ok(())
    }

    fn check_owner(&self, progress: &Progress, generation: u64) -> io::Result<()> {
        if progress.generation == generation {
            return Ok(());
        }
        let newest = progress.generation;
        Err(io::Error::other(format!("instance {generation} was replaced by {newest}")))
    }

    /// Applies `entries` in order; one reply each.
    pub(super) fn apply(&self, generation: u64, entries: Vec<Entry>) -> io::Result<Vec<Reply>> {
        let mut progress = self.progress.lock();
        self.check_owner(&progress, generation)?;
        let mut replies = Vec::with_capacity(entries.len());
        let mut machine = self.machine.write();
        for Entry { log_id, payload } in entries {
            let expected = progress.log_id.map_or(0, |id| id.index + 1);
            if log_id.index != expected {
                let index = log_id.index;
                return Err(io::Error::other(format!("entry {index} is not the next, {expected}")));
            }
            let reply = match payload {
                EntryPayload::Blank => Reply::None,
                EntryPayload::Membership(membership) => {
                    progress.membership = StoredMembership::new(Some(log_id), membership);
                    Reply::None
                }
                EntryPayload::Normal(command) => {
                    let term = log_id.leader_id.term;
                    Reply::Machine(machine.apply(term, log_id.index, &command.0))
                }
            };
            progress.log_id = Some(log_id);
            replies.push(reply);
        }
        drop(machine);
        self.index.send_replace(progress.log_id.map_or(0, |id| id.index));
        Ok(replies)
    }

    /// Writes the state as it is now beside the log. It is synced when this returns.
    pub(super) async fn save(&self, generation: u64) -> io::Result<(SnapshotMeta, Bytes)> {
        let (meta, state, synced) = {
            let progress = self.progress.lock();
            self.check_owner(&progress, generation)?;
            let state = Bytes::from(self.machine.read().snapshot());
            let (last_log_id, last_membership) = (progress.log_id, progress.membership.clone());
            let meta = SnapshotMeta { last_log_id, last_membership };
            let synced = self.submit_saved(meta.clone(), state.clone());
            (meta, state, synced)
        };
        wait_for(synced).await?;
        let mut progress = self.progress.lock();
        self.check_owner(&progress, generation)?;
        let known = progress.saved.as_ref().and_then(|(meta, _)| meta.last_log_id);
        if meta.last_log_id >= known {
            progress.saved = Some((meta.clone(), state.clone()));
        }
        Ok((meta, state))
    }

    /// Takes over a snapshot of the leader's. It is synced when this returns.
    pub(super) async fn install(
        &self,
        generation: u64,
        meta: SnapshotMeta,
        state: Bytes,
    ) -> io::Result<()> {
        let synced = {
            let mut progress = self.progress.lock();
            self.check_owner(&progress, generation)?;
            self.machine.write().restore(&state).map_err(io::Error::other)?;
            progress.log_id = meta.last_log_id;
            progress.membership = meta.last_membership.clone();
            progress.saved = Some((meta.clone(), state.clone()));
            // Submitted under the lock: a rebuild that raises the generation after this waits for
            // it at its barrier.
            self.submit_saved(meta, state)
        };
        wait_for(synced).await?;
        // Shown only now: nobody acts on a state that a crash would take back.
        self.index.send_replace(self.progress.lock().log_id.map_or(0, |id| id.index));
        Ok(())
    }

    fn submit_saved(&self, meta: SnapshotMeta, state: Bytes) -> Synced {
        let (sender, synced) = oneshot::channel();
        self.engine.submit(LogOp::PutState {
            replica: self.key,
            kind: StateKind::Machine,
            bytes: encode_message(&Saved { meta, state }),
            done: Box::new(move |result| {
                // An instance that is gone does not mind.
                let _ = sender.send(result.map_err(io::Error::other));
            }),
        });
        synced
    }
}

type Synced = oneshot::Receiver<io::Result<()>>;

async fn wait_for(synced: Synced) -> io::Result<()> {
    synced.await.map_err(|_| io::Error::other("the log engine has stopped"))?
}
