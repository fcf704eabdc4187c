//! Totals of a span at single moments: what is common to the checks of `comments` and `sums`.
//!
//! Additions have amounts of at least zero, and no row ever goes away. Then, for the rows and the
//! total of everything in the span, and of each group of it:
//!
//! * a snapshot has at least what was acknowledged before it began, and at most what was tried
//!   before it ended; an addition of unknown outcome may count from its invocation on, or never;
//! * a snapshot that began after another one ended has no less than that one;
//! * of any two snapshots, one has no less than the other in every respect: moments stand in a line,
//!   whichever ranges the snapshots asked first. This needs no order in real time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use crate::operation::{Operation, Outcome};

/// How many rows, and their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "(i64, i64)")]
pub(super) struct Figures {
    pub(super) rows: i64,
    pub(super) total: i64,
}

impl From<(i64, i64)> for Figures {
    fn from((rows, total): (i64, i64)) -> Self {
        Self { rows, total }
    }
}

impl Figures {
    pub(super) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.total += other.total;
    }

    fn is_at_most(self, other: Self) -> bool {
        self.rows <= other.rows && self.total <= other.total
    }
}

pub(super) type Groups = BTreeMap<String, Figures>;

/// The group of a key: its first bytes, or all of it.
pub(super) fn group_of(key: &str, group_bytes: usize) -> &str {
    key.get(..group_bytes).unwrap_or(key)
}

/// A write, as totals see it: its row is there from then on, and the total grows by the amount.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addition<'a> {
    pub(super) key: &'a str,
    pub(super) amount: i64,
    pub(super) invoked: u64,
    /// `u64::MAX` if its outcome is unknown.
    pub(super) completed: u64,
}

/// What one read saw of the span.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) invoked: u64,
    pub(super) completed: u64,
    pub(super) all: Figures,
    pub(super) groups: Option<Groups>,
}

impl Snapshot {
    /// The answer to a `sum`.
    pub(super) fn of_sum(sum: &Operation) -> Result<Self, String> {
        let malformed = || format!("the sum begun at {} ns is malformed", sum.invoked);
        let Operation { invoked, completed, .. } = *sum;
        let rows = sum.rows.and_then(|rows| i64::try_from(rows).ok()).ok_or_else(malformed)?;
        let total = sum.output.as_i64().ok_or_else(malformed)?;
        let groups = |value: &Value| Groups::deserialize(value).map_err(|_| malformed());
        let groups = sum.groups.as_ref().map(groups).transpose()?;
        Ok(Self { invoked, completed, all: Figures { rows, total }, groups })
    }

    pub(super) fn at(&self, reason: &str) -> String {
        format!("snapshot begun at {} ns, ended at {}: {reason}", self.invoked, self.completed)
    }
}

/// Checks snapshots of one span against `additions`, all of them to keys of that span and none of
/// them certainly not applied. Groups are of keys with the same first bytes.
pub(super) fn check(
    additions: &[Addition<'_>],
    snapshots: &[Snapshot],
    group_bytes: usize,
) -> Result<(), String> {
    let mut by_group: HashMap<&str, Vec<Addition<'_>>> = HashMap::new();
    for addition in additions {
        by_group.entry(group_of(addition.key, group_bytes)).or_default().push(*addition);
    }
    let bounds = Bounds::of(additions);
    let groups = by_group.iter().map(|(name, additions)| (*name, Bounds::of(additions))).collect();
    for snapshot in snapshots {
        check_bounds(snapshot, &bounds, &groups).map_err(|reason| snapshot.at(&reason))?;
    }
    check_order(snapshots)?;
    check_line(snapshots)
}

/// Whether some read began after all that was acknowledged, and all that was tried.
pub(super) fn is_final(read: &Operation, operations: &[Operation]) -> bool {
    let ended = |o: &Operation| if o.outcome == Outcome::Ok { o.completed } else { o.invoked };
    let mut writes = operations.iter().filter(|o| !o.f.is_read());
    read.outcome == Outcome::Ok && writes.all(|o| ended(o) < read.invoked)
}

/// What is there at the end of each event.
struct Timeline(Vec<(u64, Figures)>);

impl Timeline {
    fn of<'a>(events: impl Iterator<Item = (u64, &'a str, i64)>) -> Self {
        let mut events: Vec<_> = events.collect();
        events.sort_unstable();
        let (mut keys, mut sum) = (HashSet::new(), Figures::default());
        let grown = events.into_iter().map(|(time, key, amount)| {
            sum.add(Figures { rows: i64::from(keys.insert(key)), total: amount });
            (time, sum)
        });
        Self(grown.collect())
    }

    fn before(&self, time: u64) -> Figures {
        let events = self.0.partition_point(|(at, _)| *at < time);
        events.checked_sub(1).map_or_else(Figures::default, |last| self.0[last].1)
    }
}

struct Bounds {
    acknowledged: Timeline,
    tried: Timeline,
}

impl Bounds {
    fn of(additions: &[Addition<'_>]) -> Self {
        let known = additions.iter().filter(|a| a.completed < u64::MAX);
        Self {
            acknowledged: Timeline::of(known.map(|a| (a.completed, a.key, a.amount))),
            tried: Timeline::of(additions.iter().map(|a| (a.invoked, a.key, a.amount))),
        }
    }

    fn check(&self, seen: Figures, snapshot: &Snapshot) -> Result<(), String> {
        let least = self.acknowledged.before(snapshot.invoked);
        // What began in the very nanosecond may count.
        let most = self.tried.before(snapshot.completed.saturating_add(1));
        if !least.is_at_most(seen) {
            return Err(format!("{seen:?} is less than the acknowledged {least:?}"));
        }
        if !seen.is_at_most(most) {
            return Err(format!("{seen:?} is more than {most:?}, all that was tried"));
        }
        Ok(())
    }
}

fn check_bounds(
    snapshot: &Snapshot,
    bounds: &Bounds,
    by_group: &HashMap<&str, Bounds>,
) -> Result<(), String> {
    bounds.check(snapshot.all, snapshot)?;
    let Some(groups) = &snapshot.groups else { return Ok(()) };
    let mut sum = Figures::default();
    groups.values().for_each(|figures| sum.add(*figures));
    if sum != snapshot.all {
        return Err(format!("its groups add up to {sum:?} instead of {:?}", snapshot.all));
    }
    let unknown = Bounds::of(&[]);
    let names: BTreeSet<&str> =
        groups.keys().map(String::as_str).chain(by_group.keys().copied()).collect();
    for name in names {
        let seen = groups.get(name).copied().unwrap_or_default();
        let bounds = by_group.get(name).unwrap_or(&unknown);
        bounds.check(seen, snapshot).map_err(|reason| format!("group {name:?}: {reason}"))?;
    }
    Ok(())
}

/// Snapshots one after the other never go back.
fn check_order(snapshots: &[Snapshot]) -> Result<(), String> {
    let mut ended: Vec<&Snapshot> = snapshots.iter().collect();
    ended.sort_by_key(|s| s.completed);
    let mut begun: Vec<&Snapshot> = snapshots.iter().collect();
    begun.sort_by_key(|s| s.invoked);
    let mut ended = ended.into_iter().peekable();
    let mut reached = Figures::default();
    for snapshot in begun {
        while let Some(earlier) = ended.next_if(|earlier| earlier.completed < snapshot.invoked) {
            reached.rows = reached.rows.max(earlier.all.rows);
            reached.total = reached.total.max(earlier.all.total);
        }
        if !reached.is_at_most(snapshot.all) {
            let reason = format!("{:?} goes back: {reached:?} was seen before", snapshot.all);
            return Err(snapshot.at(&reason));
        }
    }
    Ok(())
}

/// Snapshots stand in one line.
fn check_line(snapshots: &[Snapshot]) -> Result<(), String> {
    let mut line: Vec<&Snapshot> = snapshots.iter().collect();
    line.sort_by_key(|s| (s.all.total, s.all.rows));
    // Being at most something carries over, so neighbours are enough.
    for pair in line.windows(2) {
        if !pair[0].all.is_at_most(pair[1].all) {
            return Err(forked(pair[0], pair[1], ""));
        }
    }
    line.retain(|s| s.groups.is_some());
    for pair in line.windows(2) {
        let [Some(lower), Some(upper)] = [&pair[0].groups, &pair[1].groups] else { continue };
        let other = |name: &String| upper.get(name).copied().unwrap_or_default();
        if let Some((name, _)) = lower.iter().find(|(name, f)| !f.is_at_most(other(name))) {
            return Err(forked(pair[0], pair[1], name));
        }
    }
    Ok(())
}

fn forked(lower: &Snapshot, upper: &Snapshot, group: &str) -> String {
    let show = |s: &Snapshot| {
        let figures = s.groups.as_ref().and_then(|groups| groups.get(group).copied());
        let at = s.invoked;
        format!("{:?} begun at {at} ns ({:?} in the group)", s.all, figures.unwrap_or_default())
    };
    format!(
        "two snapshots each have what the other lacks, by the group {group:?}: {} and {}",
        show(lower),
        show(upper)
    )
}
