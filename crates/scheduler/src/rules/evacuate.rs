//! A draining node leads nothing, nor does one whose disk takes no writes; a decommissioned one
//! loses its replicas too.
//!
//! Leaders go in batches, to the coolest voter; replicas go under the limits of moves, to where the
//! spread over labels stays best.

use crate::destination::Spread;
use crate::figures::Percent;
use crate::pass::Pass;
use crate::rules::repair::by_count;
use crate::{Action, Intent, Liveness, Rule};

/// Leaders handed over by one node at the same time, when it is to lead nothing.
const HANDING_MAX: usize = 64;

/// Empties what is to be emptied.
pub(crate) fn run(pass: &mut Pass<'_>) {
    let is_up = |n: &crate::stand::Stand<'_>| n.view.liveness == Liveness::Up;
    let leaves: Vec<_> = pass.nodes.iter().map(|n| is_up(n) && !n.may_lead).collect();
    let goes: Vec<_> =
        pass.nodes.iter().map(|n| n.view.intent == Intent::Decommissioning).collect();
    if !leaves.iter().chain(&goes).any(|&any| any) {
        return;
    }
    for i in 0..pass.view.ranges.len() {
        let leader = pass.leaders[i] as usize;
        if leaves.get(leader).copied().unwrap_or(false) {
            hand_over(pass, i);
        }
        let leaving = pass.members(i).iter().copied();
        let leaving = leaving.filter(|&n| goes.get(n as usize).copied().unwrap_or(false)).max();
        if let Some(from) = leaving {
            move_away(pass, i, from);
        }
    }
}

/// Why a node is left.
fn why(pass: &Pass<'_>, n: u32) -> String {
    let name = pass.name(n);
    match pass.node(n).map(|stand| (stand.view.intent, stand.view.is_read_only)) {
        Some((Intent::Decommissioning, _)) => format!("{name} is decommissioned"),
        Some((Intent::Draining, _)) => format!("{name} is draining"),
        Some((Intent::Active, true)) => format!("{name} is read-only: its disk is nearly full"),
        _ => format!("{name} does not serve"),
    }
}

fn hand_over(pass: &mut Pass<'_>, i: usize) {
    let from = pass.leaders[i];
    // A move of a replica does not stand in the way of handing the leader over, but whoever moves
    // it does that by itself when the leader has to go.
    if !pass.is_free[i] {
        return pass.decline(i, Rule::Evacuate, |pass| {
            format!("{}; {}", why(pass, from), pass.why_not_free(i))
        });
    }
    if pass.node(from).is_some_and(|stand| stand.handing >= HANDING_MAX) {
        return pass.decline(i, Rule::Evacuate, |pass| {
            format!(
                "{}; {HANDING_MAX} of its leaders are being handed over already",
                why(pass, from)
            )
        });
    }
    let heat = |n: &u32| {
        pass.node(*n).map_or(f64::MAX, |stand| (stand.cores + pass.cores[i]) / stand.capacity())
    };
    match pass.heirs(i).min_by(|a, b| heat(a).total_cmp(&heat(b)).then(a.cmp(b))) {
        Some(to) => {
            let (range, node) = (pass.id(i), pass.name(to));
            let uses = pass.node(to).map_or(0.0, |stand| stand.heat());
            let reason =
                format!("{}; {node} is the coolest heir, at {}", why(pass, from), Percent(uses));
            pass.order(i, Rule::Evacuate, Action::Transfer { range, to: node }, reason);
        }
        None => pass.decline(i, Rule::Evacuate, |pass| {
            format!("{}, but no other voter is live on a node that may lead", why(pass, from))
        }),
    }
}

fn move_away(pass: &mut Pass<'_>, i: usize, from: u32) {
    if !pass.is_free[i] {
        return pass.decline(i, Rule::Evacuate, |pass| {
            format!("{}; {}", why(pass, from), pass.why_not_free(i))
        });
    }
    if pass.is_sending_enough(i) {
        return pass.decline(i, Rule::Evacuate, |pass| {
            let (leader, most) = (pass.name(pass.leaders[i]), pass.settings.moves_per_node);
            format!(
                "{}; the leader {leader} sends {most} replicas already, as many as it may",
                why(pass, from)
            )
        });
    }
    match pass.destination(i, from, Spread::Best, by_count, |_| true) {
        Ok(to) => {
            let (range, node, gone) = (pass.id(i), pass.name(to), pass.name(from));
            let has = pass.node(to).map_or(0, |stand| stand.replicas);
            let reason = format!("{}; {node} has {has} replicas", why(pass, from));
            pass.order(i, Rule::Evacuate, Action::Move { range, from: gone, to: node }, reason);
        }
        Err(refused) => pass.decline(i, Rule::Evacuate, |pass| {
            format!("{}, but no node can take this replica: {refused}", why(pass, from))
        }),
    }
}
