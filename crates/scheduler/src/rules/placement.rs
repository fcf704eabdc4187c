//! Replicas of a range spread over failure domains.

use crate::pass::Pass;
use crate::{Action, Rule};
use isotherm_types::NodeId;

/// Moves that one look orders.
const ORDERS_MAX: usize = 4;

/// Moves a replica to where the range spans more of them.
pub(crate) fn placement(pass: &mut Pass<'_>) {
    if pass.view.nodes.values().all(|n| n.labels.is_empty()) {
        return;
    }
    let most = pass.diversity(&pass.view.nodes.keys().copied().collect::<Vec<_>>());
    let mut orders = 0;
    for range in &pass.view.ranges {
        let d = &range.descriptor;
        let nodes: Vec<NodeId> = d.replicas.iter().map(|r| r.node).collect();
        let now = pass.diversity(&nodes);
        if now >= most || orders >= ORDERS_MAX {
            continue;
        }
        // Which replica to give for which node, if that spreads the range over more.
        let hosts: Vec<NodeId> = pass.books.keys().copied().filter(|n| pass.may_host(*n)).collect();
        let mut best: Option<(usize, usize, NodeId, NodeId)> = None;
        for to in hosts.into_iter().filter(|n| !nodes.contains(n)) {
            for from in &nodes {
                let then: Vec<_> = nodes.iter().map(|n| if n == from { to } else { *n }).collect();
                let (gain, load) = (pass.diversity(&then), pass.books[&to].replicas);
                let is_better =
                    best.is_none_or(|(known, replicas, ..)| (known, load) < (gain, replicas));
                if gain > now && is_better {
                    best = Some((gain, load, *from, to));
                }
            }
        }
        let Some((gain, _, from, to)) = best else { continue };
        if let Some(why) = pass.busy(range) {
            pass.decline(Rule::Placement, d.id, format!("it could spread over more, but {why}"));
            continue;
        }
        if !pass.has_room_in(to) || !pass.has_room_out(from) {
            continue;
        }
        let why = format!("its replicas would spread over {gain} failure domains instead of {now}");
        pass.act(Rule::Placement, Action::Move { range: d.id, from, to }, why);
        orders += 1;
    }
}
