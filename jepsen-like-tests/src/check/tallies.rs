//! Which increments a snapshot has, by the values of the tallies alone.
//!
//! A tally only grows, and each acknowledged increment says what it grew to: a snapshot has it if,
//! and only if, the tally's value there is at least that. So the rule that a snapshot has every
//! increment that was acknowledged before one that it has began needs no scan.

use std::collections::BTreeMap;

use isotherm_types::KeyRange;

use super::totals::{Groups, group_of};
use crate::history::Function;
use crate::operation::{Operation, Outcome};

/// Acknowledged increments of one tally.
struct Tally<'a> {
    key: &'a str,
    /// What each made the value, and the latest invocation among it and those below.
    by_value: Vec<(i64, u64)>,
    /// When each was acknowledged, and the highest value among it and those before.
    by_time: Vec<(u64, i64)>,
}

/// The tallies of a history, by the group in which they are alone.
pub(super) struct Tallies<'a>(BTreeMap<&'a str, Tally<'a>>);

impl<'a> Tallies<'a> {
    pub(super) fn of(operations: &'a [Operation], group_bytes: usize) -> Result<Self, String> {
        let mut tallies: BTreeMap<&str, Tally<'_>> = BTreeMap::new();
        let is_known = |o: &&Operation| o.f == Function::Incr && o.outcome == Outcome::Ok;
        for incr in operations.iter().filter(is_known) {
            let value = incr.result.as_ref().and_then(serde_json::Value::as_i64);
            let value = value.ok_or_else(|| format!("{:?}: an increment to nothing", incr.key))?;
            let key = incr.key.as_str();
            let tally = tallies.entry(group_of(key, group_bytes)).or_insert_with(|| Tally {
                key,
                by_value: Vec::new(),
                by_time: Vec::new(),
            });
            if tally.key != key {
                return Err(format!("{key:?} and {:?} share a group: not a history", tally.key));
            }
            tally.by_value.push((value, incr.invoked));
            tally.by_time.push((incr.completed, value));
        }
        for tally in tallies.values_mut() {
            tally.by_value.sort_unstable();
            running_max(&mut tally.by_value);
            tally.by_time.sort_unstable();
            running_max(&mut tally.by_time);
        }
        Ok(Self(tallies))
    }

    /// Checks what a snapshot of `span` says of its tallies.
    pub(super) fn check(&self, span: &KeyRange, groups: &Groups) -> Result<(), String> {
        let seen = |group: &str| groups.get(group).map_or(0, |figures| figures.total);
        let inside = || self.0.iter().filter(|(_, tally)| span.contains(tally.key.as_bytes()));
        let newest = inside().filter_map(|(group, tally)| {
            let has = tally.by_value.partition_point(|(value, _)| *value <= seen(group));
            Some((tally.by_value[has.checked_sub(1)?].1, tally.key))
        });
        let Some((invoked, newer)) = newest.max() else { return Ok(()) };
        for (group, tally) in inside() {
            let before = tally.by_time.partition_point(|(completed, _)| *completed < invoked);
            let Some(last) = before.checked_sub(1) else { continue };
            let (value, at_least) = (seen(group), tally.by_time[last].1);
            if value < at_least {
                return Err(format!(
                    "it has an increment of {newer:?} begun at {invoked} ns, but lacks one of {:?} \
                     acknowledged before that: {value} instead of {at_least}",
                    tally.key
                ));
            }
        }
        Ok(())
    }
}

/// Makes the second of each pair the highest of all seconds up to it.
fn running_max<A, B: Ord + Copy>(pairs: &mut [(A, B)]) {
    for at in 1..pairs.len() {
        pairs[at].1 = pairs[at].1.max(pairs[at - 1].1);
    }
}
