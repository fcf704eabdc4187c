//! A store in memory that keeps its word, or breaks it in one chosen way: the negative controls of
//! the workloads and checkers together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use isotherm_types::{Key, KeyRange};
use parking_lot::Mutex;

use crate::target::{CasAnswer, OpError, Target, Totals};

/// How the store breaks its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    /// Now and then a write is acknowledged and forgotten.
    LosesWrites,
    /// Now and then a read is answered from the past.
    ServesStaleReads,
    /// An increment whose answer was lost is applied once more.
    DoublesIncrements,
    /// What it refused it has applied.
    AppliesRefused,
    /// A scan lists a key twice.
    DoublesRows,
    /// A scan, or totals, shows each half of the keys as it is when its turn comes.
    ReadsPartsApart,
    /// Now and then half a transfer is all there is of it.
    TearsTransfers,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<String, String>,
    previous: BTreeMap<String, String>,
    operations: u64,
}

impl State {
    fn add(&mut self, key: &str, by: i64) -> i64 {
        let sum = self.rows.get(key).and_then(|v| v.parse::<i64>().ok()).unwrap_or(0) + by;
        self.set(key, &sum.to_string());
        sum
    }

    fn set(&mut self, key: &str, value: &str) {
        if let Some(old) = self.rows.insert(key.to_owned(), value.to_owned()) {
            self.previous.insert(key.to_owned(), old);
        }
    }
}

/// What happens to one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    Refused,
    AppliedUnanswered,
    LostUnanswered,
    /// The defect strikes.
    Broken,
}

#[derive(Debug, Clone)]
pub(crate) struct MemoryTarget {
    state: Arc<Mutex<State>>,
    defect: Defect,
}

impl MemoryTarget {
    pub(crate) fn new(defect: Defect) -> Self {
        Self { state: Arc::default(), defect }
    }

    /// The rows of `span`, at one moment unless the defect is that they are not.
    async fn rows(&self, span: &KeyRange) -> Vec<(String, String)> {
        let of = |part: &KeyRange| -> Vec<(String, String)> {
            let state = self.state.lock();
            let rows = state.rows.iter().filter(|(key, _)| part.contains(key.as_bytes()));
            rows.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let halves = span.split_at(&[Key::from_static(b"P")]);
        let Some(halves) = halves.filter(|_| self.defect == Defect::ReadsPartsApart) else {
            return of(span);
        };
        let mut rows = Vec::new();
        for half in &halves {
            rows.extend(of(half));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        rows
    }

    /// Runs `apply` for a write, with the fate that its number brings.
    async fn write<A>(&self, apply: impl Fn(&mut State) -> A + Send) -> Result<A, OpError> {
        tokio::time::sleep(Duration::from_micros(100)).await;
        let mut state = self.state.lock();
        state.operations += 1;
        let fate = match state.operations {
            n if n % 37 == 0 => Fate::Refused,
            n if n % 41 == 0 => Fate::AppliedUnanswered,
            n if n % 43 == 0 => Fate::LostUnanswered,
            n if n % 29 == 0 => Fate::Broken,
            _ => Fate::Answered,
        };
        let unknown = || OpError::Unknown("answer lost".to_owned());
        let refused = || OpError::Definite("refused".to_owned());
        match (fate, self.defect) {
            (Fate::Refused, Defect::AppliesRefused) => {
                apply(&mut state);
                Err(refused())
            }
            (Fate::Refused, _) => Err(refused()),
            (Fate::AppliedUnanswered, _) => {
                apply(&mut state);
                Err(unknown())
            }
            (Fate::LostUnanswered, _) => Err(unknown()),
            (Fate::Broken, Defect::LosesWrites) => {
                let kept = (state.rows.clone(), state.previous.clone());
                let answer = apply(&mut state);
                (state.rows, state.previous) = kept;
                Ok(answer)
            }
            (Fate::Broken, Defect::DoublesIncrements) => {
                apply(&mut state);
                Ok(apply(&mut state))
            }
            _ => Ok(apply(&mut state)),
        }
    }
}

impl Target for MemoryTarget {
    async fn get(&self, key: &str) -> Result<Option<String>, OpError> {
        tokio::time::sleep(Duration::from_micros(100)).await;
        let mut state = self.state.lock();
        state.operations += 1;
        let stale = self.defect == Defect::ServesStaleReads && state.operations.is_multiple_of(7);
        let rows = if stale { &state.previous } else { &state.rows };
        Ok(rows.get(key).cloned())
    }

    async fn put(&self, key: &str, value: &str) -> Result<(), OpError> {
        self.write(|state| state.set(key, value)).await
    }

    async fn cas(
        &self,
        key: &str,
        expected: Option<&str>,
        new: &str,
    ) -> Result<CasAnswer, OpError> {
        let apply = |state: &mut State| {
            let current = state.rows.get(key).cloned();
            let applied = current.as_deref() == expected;
            if applied {
                state.set(key, new);
            }
            CasAnswer { applied, is_current_known: true, current }
        };
        self.write(apply).await
    }

    async fn incr(&self, key: &str, by: i64) -> Result<i64, OpError> {
        self.write(|state| state.add(key, by)).await
    }

    async fn transfer(&self, from: &str, to: &str, by: i64) -> Result<(), OpError> {
        let apply = |state: &mut State| {
            state.add(from, -by);
            if self.defect != Defect::TearsTransfers || !state.operations.is_multiple_of(7) {
                state.add(to, by);
            }
        };
        self.write(apply).await
    }

    async fn totals(&self, span: &KeyRange, group_bytes: Option<usize>) -> Result<Totals, OpError> {
        let mut totals =
            Totals { groups: group_bytes.map(|_| BTreeMap::new()), ..Totals::default() };
        for (key, value) in self.rows(span).await {
            let number: i64 = value.parse().expect("workloads with totals write numbers");
            totals.rows += 1;
            totals.total += number;
            if let Some((groups, bytes)) = totals.groups.as_mut().zip(group_bytes) {
                let group = groups.entry(key[..bytes].to_owned()).or_default();
                *group = (group.0 + 1, group.1 + number);
            }
        }
        Ok(totals)
    }

    async fn scan_all(&self) -> Result<Vec<(String, String)>, OpError> {
        let mut rows = self.rows(&KeyRange::all()).await;
        if self.defect == Defect::DoublesRows {
            rows.extend(rows.first().cloned());
        }
        Ok(rows)
    }
}
