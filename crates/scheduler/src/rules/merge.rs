//! Neighbours that are both cold become one.
//!
//! Cold is the maximum of both averages over `merge_after_ms`, never the last second. A range that
//! was cut for heat is left alone for as long, so merges do not undo splits. The replicas must be on
//! the same nodes first: the smaller range is brought to the nodes of the larger one.

use crate::figures::{Bytes, Seconds};
use crate::pass::{NOWHERE, Pass};
use crate::{Action, Liveness, Rule};

/// Merges some of the neighbours that may become one.
pub(crate) fn run(pass: &mut Pass<'_>) {
    let merges = pass
        .memory
        .orders()
        .filter(|(id, order)| matches!(order.action, Action::Merge { left, .. } if left == *id));
    let merging = merges.count();
    let most = pass.settings.merges_at_once;
    let mut places = most.saturating_sub(merging + pass.memory.aligning() / 2);
    let mut aligning_places = most.saturating_sub(merging);
    let mut spare = pass.view.ranges.len().saturating_sub(pass.settings.ranges_min + merging);
    let mut i = 0;
    while i + 1 < pass.view.ranges.len() {
        let (left, right) = (i, i + 1);
        i += 1;
        if !is_cold(pass, left) || !is_cold(pass, right) {
            continue;
        }
        let together = pass.range(left).size_bytes.saturating_add(pass.range(right).size_bytes);
        if together >= pass.settings.merge_bytes {
            continue;
        }
        if spare == 0 {
            decline(pass, left, |pass| {
                let ranges = pass.view.ranges.len();
                format!(
                    "cold, but there are only {ranges} ranges and {} are kept",
                    pass.settings.ranges_min
                )
            });
            continue;
        }
        if let Some(why) = obstacle(pass, left).or_else(|| obstacle(pass, right)) {
            decline(pass, left, |_| why);
            continue;
        }
        let was_aligning = pass.is_aligning(left) || pass.is_aligning(right);
        // What aligns already has counted half before: it needs no further place of its own.
        let has_place = aligning_places > 0 && (was_aligning || places > 0);
        if !has_place {
            decline(pass, left, |_| {
                format!(
                    "cold like its neighbour, but {most} merges are under way, as many as may be"
                )
            });
            continue;
        }
        if merge(pass, left, right) {
            spare = spare.saturating_sub(1);
            aligning_places = aligning_places.saturating_sub(1);
            places = places.saturating_sub(usize::from(!was_aligning));
            i += 1;
        }
    }
}

fn decline(pass: &mut Pass<'_>, left: usize, reason: impl FnOnce(&Pass<'_>) -> String) {
    pass.decline(left, Rule::Merge, reason);
}

/// Whether it was cold for long enough; a cut starts that time anew.
fn is_cold(pass: &Pass<'_>, i: usize) -> bool {
    let (now, after) = (pass.view.now_ms, pass.settings.merge_after_ms);
    let since = pass.past(i).and_then(|past| past.cold_since_ms);
    since.is_some_and(|since| now.saturating_sub(since) >= after)
}

fn obstacle(pass: &Pass<'_>, i: usize) -> Option<String> {
    if !pass.is_free[i] {
        return Some(format!(
            "cold like its neighbour, but {} is not free: {}",
            pass.id(i),
            pass.why_not_free(i)
        ));
    }
    if !pass.is_whole(i) {
        let (live, all) = (pass.range(i).live.len(), pass.range(i).descriptor.replicas.len());
        let id = pass.id(i);
        return Some(format!(
            "cold like its neighbour, but only {live} of {all} replicas of {id} are live: a merge \
             waits for all"
        ));
    }
    let is_up = |n: &u32| pass.node(*n).is_some_and(|s| s.view.liveness == Liveness::Up);
    let gone = pass.members(i).iter().copied().find(|n| !is_up(n))?;
    Some(format!(
        "cold like its neighbour, but a replica of {} is on {}, which is not up: a merge waits for all",
        pass.id(i),
        pass.name(gone)
    ))
}

/// Merges, or brings closer; whether something was ordered.
fn merge(pass: &mut Pass<'_>, left: usize, right: usize) -> bool {
    let (a, b) = (pass.members(left).to_vec(), pass.members(right).to_vec());
    let extra = |of: &[u32], other: &[u32]| {
        of.iter().copied().filter(|n| !other.contains(n)).collect::<Vec<_>>()
    };
    let (left_id, right_id) = (pass.id(left), pass.id(right));
    let after = Seconds(pass.settings.merge_after_ms);
    let sizes = (pass.range(left).size_bytes, pass.range(right).size_bytes);
    let figures = format!(
        "both below {} cores for {after}; {} and {} are below {} together",
        pass.settings.cold_cores,
        Bytes(sizes.0),
        Bytes(sizes.1),
        Bytes(pass.settings.merge_bytes)
    );
    if a.len() == b.len() && extra(&a, &b).is_empty() {
        let action = Action::Merge { left: left_id, right: right_id };
        pass.order(left, Rule::Merge, action, figures);
        pass.is_free[right] = false;
        return true;
    }
    let (small, from_set, to_set) =
        if sizes.0 < sizes.1 { (left, &a, &b) } else { (right, &b, &a) };
    let is_closer =
        align(pass, small, &extra(from_set, to_set), &extra(to_set, from_set), &figures);
    if is_closer {
        // Until they are one no other rule moves the one away from the other.
        pass.memory.align(left_id, pass.view.now_ms);
        pass.memory.align(right_id, pass.view.now_ms);
    }
    is_closer
}

fn align(pass: &mut Pass<'_>, small: usize, from: &[u32], to: &[u32], figures: &str) -> bool {
    let (Some(&last), Some(_)) = (from.last(), to.last()) else {
        decline(pass, small, |_| format!("{figures}; but they have different numbers of replicas"));
        return false;
    };
    if pass.is_sending_enough(small) {
        decline(pass, small, |_| {
            format!("{figures}; but its leader sends as many replicas as it may")
        });
        return false;
    }
    let members = pass.members(small).to_vec();
    let before = pass.diversity(&members, NOWHERE, NOWHERE);
    // Followers first; the leader only when nothing else is left.
    let leader = pass.leaders[small];
    let from = from.iter().copied().find(|&n| n != leader).unwrap_or(last);
    let allowed = |n: &&u32| {
        pass.node(**n).is_some_and(|stand| {
            stand.may_receive
                && !pass.is_receiving_enough(stand)
                && !stand.is_full_for(pass.range(small).size_bytes, pass.settings)
        }) && pass.diversity(&members, from, **n) >= before
    };
    let Some(&to) = to.iter().find(allowed) else {
        decline(pass, small, |_| {
            format!(
                "{figures}; but its replicas cannot be brought to the nodes of its neighbour now: \
                 they are full, busy, or the spread over labels would suffer"
            )
        });
        return false;
    };
    let (range, gone, gets) = (pass.id(small), pass.name(from), pass.name(to));
    let reason = format!("{figures}; first their replicas come to the same nodes");
    pass.order(small, Rule::Merge, Action::Move { range, from: gone, to: gets }, reason);
    true
}
