//! Nodes have about as many replicas, and lead about as many cold ranges, as each other.

use crate::memory::heat_max;
use crate::pass::Pass;
use crate::{Action, Rule};
use isotherm_types::NodeId;
use std::collections::HashMap;

/// Transfers that one look orders for the sake of the count.
const TRANSFERS_MAX: usize = 16;

/// Evens the number of replicas, then that of leaders of cold ranges.
pub(crate) fn count(pass: &mut Pass<'_>) {
    even_replicas(pass);
    even_leaders(pass);
}

/// How far two nodes may be apart: a share of the mean, and one in any case.
fn allowed(pass: &Pass<'_>, mean: f64) -> f64 {
    (mean * pass.settings.tolerance).max(1.0)
}

fn even_replicas(pass: &mut Pass<'_>) {
    let nodes = pass.serving().count();
    if nodes <= pass.view.replicas_wanted {
        return;
    }
    let moves_max = nodes.saturating_mul(pass.settings.moves_per_node);
    let mut on: Option<HashMap<NodeId, Vec<usize>>> = None;
    for _ in 0..moves_max {
        let total: usize = pass.serving().map(|(_, b)| b.replicas).sum();
        let mean = total as f64 / nodes as f64;
        let allowed = allowed(pass, mean);
        let most = pass
            .serving()
            .filter(|(node, _)| pass.has_room_out(*node))
            .max_by_key(|(node, b)| (b.replicas, std::cmp::Reverse(*node)))
            .map(|(node, b)| (node, b.replicas));
        let least = pass
            .serving()
            .filter(|(node, _)| pass.may_host(*node) && pass.has_room_in(*node))
            .min_by_key(|(node, b)| (b.replicas, *node))
            .map(|(node, b)| (node, b.replicas));
        let (Some((from, many)), Some((to, few))) = (most, least) else { return };
        if many as f64 - few as f64 <= allowed.max(1.0) || many - few < 2 {
            return;
        }
        let ranges = &pass.view.ranges;
        let on = on.get_or_insert_with(|| {
            // The coldest first, those that the node does not lead before those that it does.
            let mut on: HashMap<NodeId, Vec<usize>> = HashMap::new();
            let mut by_heat: Vec<usize> = (0..ranges.len()).collect();
            by_heat.sort_by(|a, b| heat_max(&ranges[*b]).total_cmp(&heat_max(&ranges[*a])));
            for at in by_heat {
                for replica in &ranges[at].descriptor.replicas {
                    on.entry(replica.node).or_default().push(at);
                }
            }
            on
        });
        let candidates = on.get_mut(&from).map(std::mem::take).unwrap_or_default();
        let fits = |at: &usize| {
            let range = &ranges[*at];
            range.descriptor.replica_on(to).is_none()
                && pass.busy(range).is_none()
                && pass.settling(range, pass.settings.settle_ms).is_none()
                && pass.keeps_diversity(range, from, to)
        };
        let found = candidates.iter().rposition(|at| fits(at) && ranges[*at].leader != Some(from));
        let found = found.or_else(|| candidates.iter().rposition(fits));
        let chosen = found.map(|index| candidates[index]);
        on.insert(from, candidates);
        let Some(at) = chosen else { return };
        let range = ranges[at].descriptor.id;
        let reason = format!("{from} has {many} replicas, {to} has {few}, the mean is {mean:.1}");
        pass.act(Rule::Count, Action::Move { range, from, to }, reason);
    }
}

fn even_leaders(pass: &mut Pass<'_>) {
    let nodes = pass.serving().count();
    if nodes < 2 {
        return;
    }
    // Leaders of warm ranges are where their heat fits: only the cold ones are counted.
    let cold = pass.settings.cold_cores;
    let mut led: HashMap<NodeId, Vec<usize>> = HashMap::new();
    for (at, range) in pass.view.ranges.iter().enumerate() {
        let is_cold = heat_max(range) < cold;
        if let Some(leader) = range.leader.filter(|_| is_cold) {
            led.entry(leader).or_default().push(at);
        }
    }
    let mut counts: HashMap<NodeId, usize> =
        pass.serving().map(|(node, _)| (node, led.get(&node).map_or(0, Vec::len))).collect();
    for range in &pass.view.ranges {
        if let Some(Action::Transfer { to, .. }) =
            pass.memory.booked(range.descriptor.id).map(|b| &b.action)
            && heat_max(range) < cold
            && range.leader != Some(*to)
        {
            *counts.entry(*to).or_default() += 1;
            if let Some(count) = range.leader.and_then(|l| counts.get_mut(&l)) {
                *count = count.saturating_sub(1);
            }
        }
    }
    let mean = counts.values().sum::<usize>() as f64 / nodes as f64;
    let allowed = allowed(pass, mean).max(2.0);
    for _ in 0..TRANSFERS_MAX {
        let most = counts.iter().max_by_key(|(node, n)| (**n, std::cmp::Reverse(**node)));
        let Some((from, many)) = most.map(|(node, n)| (*node, *n)) else { return };
        let fewest = counts.values().min().copied().unwrap_or(0);
        if many as f64 - fewest as f64 <= allowed {
            return;
        }
        let candidates = led.entry(from).or_default();
        let mut found = None;
        while let Some(at) = candidates.pop() {
            let range = &pass.view.ranges[at];
            if pass.busy(range).is_some() || pass.settling(range, pass.settings.settle_ms).is_some()
            {
                continue;
            }
            let heir = pass.heirs(range).min_by_key(|n| (counts.get(n).copied(), *n));
            if let Some(to) = heir.filter(|to| counts.get(to).is_some_and(|n| n + 1 < many)) {
                found = Some((range.descriptor.id, to));
                break;
            }
        }
        let Some((range, to)) = found else { return };
        let few = counts.get(&to).copied().unwrap_or(0);
        let reason =
            format!("{from} leads {many} cold ranges, {to} leads {few}, the mean is {mean:.1}");
        pass.act(Rule::Count, Action::Transfer { range, to }, reason);
        *counts.entry(from).or_default() -= 1;
        *counts.entry(to).or_default() += 1;
    }
}
