//! A replica on a node that is gone is built again elsewhere; a range with too few gets more.
//!
//! Never without a leader (nothing can be built without a quorum), and not before a node was silent
//! for `dead_after_ms`: a restart is not a loss. The ranges with the fewest live replicas go first. A move
//! whose target falls silent is given up, so that the range is free for another.

use crate::destination::Spread;
use crate::figures::Seconds;
use crate::memory::Order;
use crate::pass::{NOWHERE, Pass};
use crate::stand::Stand;
use crate::{Action, Rule};

/// Longer than a restart takes.
const GIVE_UP_AFTER_MS: u64 = 30_000;

/// What is wrong with one range.
struct Damage {
    i: usize,
    live: usize,
    dead: Option<u32>,
}

/// Orders what can be repaired now.
pub(crate) fn run(pass: &mut Pass<'_>) {
    let (now, wanted) = (pass.view.now_ms, pass.view.replicas_wanted);
    give_up_moves(pass);
    let is_dead: Vec<_> =
        pass.nodes.iter().map(|stand| stand.is_dead(now, pass.settings)).collect();
    let is_silent: Vec<_> = pass.nodes.iter().map(|stand| stand.silent_ms(now).is_some()).collect();
    let is = |flags: &[bool], n: u32| flags.get(n as usize).copied().unwrap_or(false);
    let mut damaged = Vec::new();
    for i in 0..pass.view.ranges.len() {
        let members = pass.members(i);
        let dead = members.iter().copied().find(|&n| is(&is_dead, n));
        let is_thin = members.len() < wanted.min(pass.nodes.len());
        if dead.is_some() || is_thin {
            let live = pass.range(i).live.len();
            damaged.push(Damage { i, live, dead });
        } else if pass.view.ranges[i].leader.is_none() {
            pass.decline(i, Rule::Repair, |pass| pass.why_no_leader(i));
        } else if let Some(&n) = members.iter().find(|&&n| is(&is_silent, n)) {
            pass.decline(i, Rule::Repair, |pass| {
                let silent = pass.node(n).and_then(|stand| stand.silent_ms(now)).unwrap_or(0);
                let after = Seconds(pass.settings.dead_after_ms);
                let (name, silent) = (pass.name(n), Seconds(silent));
                format!("{name} is silent for {silent}; its replica is replaced after {after}")
            });
        }
    }
    damaged.sort_by_key(|damage| (damage.live, damage.i));
    for damage in damaged {
        repair(pass, &damage);
    }
}

/// A move to a node that is silent is given up: nothing else happens to its range before it ends.
fn give_up_moves(pass: &mut Pass<'_>) {
    let now = pass.view.now_ms;
    for i in (0..pass.view.ranges.len()).filter(|_| !pass.view.moves.is_empty()) {
        let Some(pending) = pass.pending(i) else { continue };
        let target = pass.nodes.iter().find(|stand| stand.id() == pending.to);
        let silent = target.and_then(|stand| stand.silent_ms(now));
        let Some(silent) = silent.filter(|ms| *ms >= GIVE_UP_AFTER_MS) else { continue };
        let range = pass.id(i);
        let is_given_up = |o: &Order| matches!(o.action, Action::CancelMove { .. });
        if pass.memory.order(range).is_some_and(is_given_up) {
            continue;
        }
        let (to, silent) = (pending.to, Seconds(silent));
        let reason = format!("{to}, where its new replica is being built, is silent for {silent}");
        pass.order(i, Rule::Repair, Action::CancelMove { range }, reason);
    }
}

fn repair(pass: &mut Pass<'_>, damage: &Damage) {
    let i = damage.i;
    if !pass.is_free[i] {
        return pass.decline(i, Rule::Repair, |pass| pass.why_not_free(i));
    }
    let what = |pass: &Pass<'_>| match damage.dead {
        Some(dead) => {
            let silent = pass.node(dead).and_then(|s| s.silent_ms(pass.view.now_ms)).unwrap_or(0);
            format!("{} is silent for {}, so its replica is lost", pass.name(dead), Seconds(silent))
        }
        None => {
            let (has, wanted) = (pass.members(i).len(), pass.view.replicas_wanted);
            format!("{has} replicas of {wanted}")
        }
    };
    if pass.is_sending_enough(i) {
        return pass.decline(i, Rule::Repair, |pass| {
            let leader = pass.name(pass.leaders[i]);
            let most = pass.settings.moves_per_node;
            format!(
                "{}; its leader {leader} sends {most} replicas already, as many as it may",
                what(pass)
            )
        });
    }
    let from = damage.dead.unwrap_or(NOWHERE);
    match pass.destination(i, from, Spread::Best, by_count, |_| true) {
        Ok(to) => {
            let (range, live, node) = (pass.id(i), damage.live, pass.name(to));
            let action = match damage.dead {
                Some(dead) => Action::Move { range, from: pass.name(dead), to: node },
                None => Action::Add { range, to: node },
            };
            let has = pass.node(to).map_or(0, |stand| stand.replicas);
            let reason = format!("{}; {live} live; {node} has {has} replicas", what(pass));
            pass.order(i, Rule::Repair, action, reason);
        }
        Err(refused) => pass.decline(i, Rule::Repair, |pass| {
            format!("{}; no node can take a new one: {refused}", what(pass))
        }),
    }
}

/// Fewest replicas first, then the least heat.
pub(crate) fn by_count(stand: &Stand<'_>) -> f64 {
    stand.replicas as f64 + (stand.heat() / 100.0).min(0.9)
}
