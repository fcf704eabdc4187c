//! Replicas on nodes that are gone are built again elsewhere.

use crate::pass::Pass;
use crate::{Action, Liveness, Rule};
use isotherm_types::NodeId;

/// Replaces replicas on dead nodes, and adds those that are missing: the ranges that are nearest to
/// losing their quorum first.
pub(crate) fn repair(pass: &mut Pass<'_>) {
    let now = pass.view.now_ms;
    let silent_for = |pass: &Pass<'_>, node: NodeId| match pass.node(node).map(|n| n.liveness) {
        Some(Liveness::Down { since_ms }) => Some(now.saturating_sub(since_ms)),
        _ => None,
    };
    let dead_after = pass.settings.dead_after_ms;
    let mut ill: Vec<_> = Vec::new();
    for range in &pass.view.ranges {
        let replicas = &range.descriptor.replicas;
        let lost = replicas.iter().filter(|r| silent_for(pass, r.node).is_some()).count();
        let missing = pass.view.replicas_wanted.saturating_sub(replicas.len());
        if lost + missing > 0 {
            ill.push((replicas.len() - lost, range));
        }
    }
    ill.sort_by_key(|(alive, range)| (*alive, range.descriptor.id));
    for (_, range) in ill {
        let d = &range.descriptor;
        let lost = d.replicas.iter().filter_map(|r| Some((r.node, silent_for(pass, r.node)?)));
        let longest = lost.max_by_key(|(_, silent)| *silent);
        let missing = d.replicas.len() < pass.view.replicas_wanted;
        if let Some((node, silent)) = longest
            && silent < dead_after
            && !missing
        {
            let (silent, limit) = (silent / 1000, dead_after / 1000);
            let why = format!(
                "its replica on {node} is lost for {silent} s; it is built again elsewhere after \
                 {limit} s"
            );
            pass.decline(Rule::Repair, d.id, why);
            continue;
        }
        if let Some(why) = pass.busy(range) {
            pass.decline(Rule::Repair, d.id, format!("it lacks a replica, but {why}"));
            continue;
        }
        let dead = longest.filter(|(_, silent)| *silent >= dead_after).map(|(node, _)| node);
        let Some(to) = pass.best_host(range, dead) else {
            let why = "it lacks a replica, and no node that serves, has room and has none of it is \
                       free for one now";
            pass.decline(Rule::Repair, d.id, why.to_owned());
            continue;
        };
        match (dead, longest) {
            (Some(from), Some((_, silent))) => {
                let why = format!("{from} is gone for {} s", silent / 1000);
                pass.act(Rule::Repair, Action::Move { range: d.id, from, to }, why);
            }
            _ => {
                let (has, wanted) = (d.replicas.len(), pass.view.replicas_wanted);
                let why = format!("it has {has} replicas of {wanted}");
                pass.act(Rule::Repair, Action::Add { range: d.id, to }, why);
            }
        }
    }
}
