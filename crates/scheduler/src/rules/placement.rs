//! Replicas of a range spread over failure domains: over different values of every label.
//!
//! A replica moves only if the spread gets strictly better. A spread goes before even numbers: a
//! range that loses two replicas with one zone is gone, and uneven numbers only cost. No other rule
//! makes the spread worse, except where a replica has to go in any case.

use crate::destination::{Diversity, Spread};
use crate::pass::{NOWHERE, Pass};
use crate::rules::repair::by_count;
use crate::{Action, Rule};

/// Badly placed ranges that are looked at in one pass.
const LOOKS_MAX: usize = 128;

/// Moves what stands badly.
pub(crate) fn run(pass: &mut Pass<'_>) {
    let (count, first) = (pass.view.ranges.len(), pass.memory.cursor);
    if pass.label_values.is_empty() || count == 0 {
        return;
    }
    let mut looks = 0;
    for at in 0..count {
        let i = (first + at) % count;
        let members = pass.members(i);
        if pass.diversity(members, NOWHERE, NOWHERE) >= ideal(pass, members.len()) {
            continue;
        }
        if looks == LOOKS_MAX && !(pass.focus.is_some() && pass.is_asked(i)) {
            // The next pass goes on from here.
            pass.memory.cursor = i;
            if pass.focus.is_none() {
                return;
            }
            continue;
        }
        looks += 1;
        look(pass, i);
    }
}

fn look(pass: &mut Pass<'_>, i: usize) {
    let before = spread(pass, i, NOWHERE, NOWHERE);
    if !pass.is_free[i] {
        return pass.decline(i, Rule::Placement, |pass| {
            format!("replicas are not spread as they could be ({before}); {}", pass.why_not_free(i))
        });
    }
    if !pass.is_whole(i) {
        return pass.decline(i, Rule::Placement, |pass| {
            let (live, all) = (pass.range(i).live.len(), pass.members(i).len());
            format!(
                "replicas are not spread as they could be ({before}), but only {live} of {all} are \
                 live: none is moved until they all are"
            )
        });
    }
    if pass.is_sending_enough(i) {
        return pass.decline(i, Rule::Placement, |pass| {
            let (leader, most) = (pass.name(pass.leaders[i]), pass.settings.moves_per_node);
            format!(
                "replicas are not spread as they could be ({before}); the leader {leader} sends \
                 {most} replicas already, as many as it may"
            )
        });
    }
    let members = pass.members(i).to_vec();
    let mut best: Option<(Diversity, u32, u32)> = None;
    let mut why_not = None;
    // The leader last: taking it away costs a hand-over.
    let (leader, mut order) = (pass.leaders[i], members.clone());
    order.sort_by_key(|&n| (n == leader, n));
    for from in order.into_iter().filter(|&n| n != NOWHERE) {
        match pass.destination(i, from, Spread::Better, by_count, |_| true) {
            Ok(to) => {
                let after = pass.diversity(&members, from, to);
                if best.is_none_or(|(best, ..)| after > best) {
                    best = Some((after, from, to));
                }
            }
            Err(refused) => why_not = Some(refused),
        }
    }
    if let Some((_, from, to)) = best {
        let (range, leaves, gets) = (pass.id(i), pass.name(from), pass.name(to));
        let after = spread(pass, i, from, to);
        let reason = format!("replicas spread better: {before} now, {after} then");
        let action = Action::Move { range, from: leaves, to: gets };
        pass.order(i, Rule::Placement, action, reason);
    } else if let Some(refused) = why_not {
        pass.decline(i, Rule::Placement, |_| {
            format!(
                "replicas are not spread as they could be ({before}), but no node helps: {refused}"
            )
        });
    }
}

/// The best spread that `replicas` can have, each label by itself: as even as its values allow.
fn ideal(pass: &Pass<'_>, replicas: usize) -> Diversity {
    let mut pairs = [0u8; 8];
    for (pairs, &values) in pairs.iter_mut().zip(&pass.label_values) {
        let (each, more) = (replicas / values.max(1), replicas % values.max(1));
        let same = |n: usize| n * n.saturating_sub(1) / 2;
        let equal = more * same(each + 1) + values.saturating_sub(more) * same(each);
        // As the pairs are counted: no more than fit into their byte.
        *pairs = u8::try_from(same(replicas).saturating_sub(equal)).unwrap_or(u8::MAX);
    }
    u64::from_be_bytes(pairs)
}

/// How many values of the most significant labels the replicas have, in words.
pub(crate) fn spread(pass: &Pass<'_>, i: usize, minus: u32, plus: u32) -> String {
    let mut keys: Vec<_> = pass.view.nodes.values().flat_map(|node| node.labels.keys()).collect();
    keys.sort();
    keys.dedup();
    let set = pass.members(i).iter().copied().filter(|&n| n != minus).chain(Some(plus));
    let set: Vec<_> = set.filter_map(|n| pass.node(n)).collect();
    let words = keys.into_iter().map(|key| {
        let mut values: Vec<_> = set.iter().map(|stand| stand.view.labels.get(key)).collect();
        values.sort();
        let names: Vec<_> =
            values.iter().map(|value| value.map_or("none", |value| value.as_str())).collect();
        format!("{key} {}", names.join("+"))
    });
    words.collect::<Vec<_>>().join(", ")
}
