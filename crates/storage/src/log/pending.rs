//! What was submitted and not written yet, so that entries are readable at once.

use super::engine::{LogOp, LogRecord, ReplicaKey};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};

/// Counts submissions; an operation is written when the writer has reached its number.
pub(super) type Seq = u64;

/// The difference between the logs as submitted and as written, per replica.
///
/// Invariant: for every replica, what the database shows after the operations up to any `Seq` that
/// was not trimmed yet, with its `cuts` and `rows` laid over it, is its log after
/// everything submitted. So a reader may take the view and a database snapshot at once, in either
/// state of the writer.
#[derive(Debug, Default)]
pub(super) struct Pending {
    views: HashMap<ReplicaKey, View>,
    seq: Seq,
}

/// One replica's part.
#[derive(Debug, Default)]
pub(super) struct View {
    rows: BTreeMap<u64, (Seq, Bytes)>,
    /// Entries in the database from these indexes on are gone, or about to be replaced.
    cuts: Vec<(Seq, u64)>,
    /// Entries below are purged. Kept after the purge is written: it saves readers from stepping
    /// over what was deleted.
    first: u64,
}

/// A view as a reader takes it along.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Entries that stand over those of the database.
    pub rows: BTreeMap<u64, Bytes>,
    /// The database counts below this index only.
    pub cut: u64,
    /// Nothing below counts.
    pub first: u64,
}

impl Pending {
    /// Takes note of an operation and numbers it.
    pub fn submit(&mut self, op: &LogOp) -> Seq {
        self.seq += 1;
        let seq = self.seq;
        match op {
            LogOp::Append { replica, records, .. } => {
                let view = self.views.entry(*replica).or_default();
                for LogRecord { index, bytes } in records {
                    view.rows.insert(*index, (seq, bytes.clone()));
                }
            }
            LogOp::TruncateAfter { replica, index, .. } => {
                let view = self.views.entry(*replica).or_default();
                if let Some(from) = index.checked_add(1) {
                    view.rows.split_off(&from);
                    view.cuts.push((seq, from));
                }
            }
            LogOp::Purge { replica, upto, .. } => {
                let view = self.views.entry(*replica).or_default();
                view.first = view.first.max(upto.saturating_add(1));
                view.rows = view.rows.split_off(&view.first);
            }
            LogOp::DeleteReplica { replica, .. } => {
                let view = self.views.entry(*replica).or_default();
                view.rows.clear();
                view.cuts.push((seq, 0));
                view.first = 0;
            }
            LogOp::Vote { .. }
            | LogOp::Committed { .. }
            | LogOp::PutState { .. }
            | LogOp::DeleteState { .. }
            | LogOp::Barrier { .. } => {}
        }
        seq
    }

    /// Forgets what the operation `seq` left here: it is written now.
    pub fn written(&mut self, seq: Seq, op: &LogOp) {
        let Some(replica) = op.replica() else { return };
        let Some(view) = self.views.get_mut(&replica) else { return };
        if let LogOp::Append { records, .. } = op {
            for LogRecord { index, .. } in records {
                if view.rows.get(index).is_some_and(|(of, _)| *of == seq) {
                    view.rows.remove(index);
                }
            }
        }
        view.cuts.retain(|(of, _)| *of != seq);
        if view.rows.is_empty() && view.cuts.is_empty() && view.first == 0 {
            self.views.remove(&replica);
        }
    }

    /// What lies over the database in `[from, to)`.
    pub fn overlay(&self, replica: ReplicaKey, from: u64, to: u64) -> Overlay {
        let Some(view) = self.views.get(&replica) else {
            return Overlay { cut: u64::MAX, ..Overlay::default() };
        };
        let rows = view.rows.range(from..to).map(|(index, (_, bytes))| (*index, bytes.clone()));
        let cut = view.cuts.iter().map(|(_, from)| *from).min().unwrap_or(u64::MAX);
        Overlay { rows: rows.collect(), cut, first: view.first }
    }

    /// The last entry that is pending, and below which index the database may hold a later one.
    pub fn last(&self, replica: ReplicaKey) -> (Option<LogRecord>, Overlay) {
        let bounds = self.overlay(replica, 0, 0);
        let last = self.views.get(&replica).and_then(|view| view.rows.last_key_value());
        (last.map(|(&index, (_, bytes))| LogRecord { index, bytes: bytes.clone() }), bounds)
    }

    /// The first pending entry.
    pub fn first(&self, replica: ReplicaKey) -> (Option<u64>, Overlay) {
        let bounds = self.overlay(replica, 0, 0);
        let first = self.views.get(&replica).and_then(|view| view.rows.first_key_value());
        (first.map(|(&index, _)| index), bounds)
    }
}
