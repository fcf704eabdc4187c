//! What rules that took no notice of a range have to say about it.

use crate::figures::{Bytes, Percent, Seconds};
use crate::memory::{Memory, threshold};
use crate::pass::Pass;
use crate::rules::placement::spread;
use crate::{ClusterView, Decision, Rule, Settings};
use isotherm_types::RangeId;

/// Adds to `decisions` a sentence of every rule that has none about `range` yet.
pub(crate) fn unremarkable(
    settings: &Settings,
    memory: &mut Memory,
    view: &ClusterView,
    range: RangeId,
    decisions: &mut Vec<Decision>,
) {
    let pass = Pass::new(view, settings, memory, Some(range));
    let Some(i) = (0..view.ranges.len()).find(|&i| pass.id(i) == range) else { return };
    if !settings.enabled {
        let reason = "the scheduler is switched off by the cluster settings".to_owned();
        return decisions.push(Decision { range, rule: Rule::Repair, action: None, reason });
    }
    let warms_up = pass.memory.warms_up_ms(view.now_ms, settings);
    if warms_up > 0 {
        let left = Seconds(warms_up);
        let reason = format!("this meta leader is new: nodes are compared in {left}");
        decisions.push(Decision { range, rule: Rule::LeaderLoad, action: None, reason });
    }
    let all = [
        (Rule::Repair, replicas(&pass, i)),
        (Rule::Evacuate, "none of its nodes is draining, leaving or read-only".to_owned()),
        (Rule::Placement, labels(&pass, i)),
        (Rule::Split, heat_and_size(&pass, i)),
        (Rule::Merge, cold(&pass, i)),
        (Rule::LeaderLoad, leader(&pass, i)),
        (Rule::ReplicaLoad, "hand-overs are enough to even out heat".to_owned()),
        (Rule::Count, counts(&pass, i)),
        (Rule::Disk, disks(&pass, i)),
    ];
    for (rule, reason) in all {
        if decisions.iter().all(|decision| decision.rule != rule) {
            decisions.push(Decision { range, rule, action: None, reason });
        }
    }
    decisions.sort_by_key(|decision| decision.rule);
}

fn replicas(pass: &Pass<'_>, i: usize) -> String {
    let (has, live) = (pass.members(i).len(), pass.range(i).live.len());
    let wanted = pass.view.replicas_wanted;
    if !pass.is_free[i] {
        let why = pass.why_not_free(i);
        return format!("{has} replicas of {wanted}, but nothing more is ordered for now: {why}");
    }
    format!("{has} replicas of {wanted}, {live} live")
}

fn labels(pass: &Pass<'_>, i: usize) -> String {
    if pass.label_values.is_empty() {
        return "nodes have no labels".to_owned();
    }
    let none = crate::pass::NOWHERE;
    format!("spread as well as can be: {}", spread(pass, i, none, none))
}

fn heat_and_size(pass: &Pass<'_>, i: usize) -> String {
    let range = pass.range(i);
    let hot = threshold(range, pass.view, pass.settings);
    let (is, large) = (Bytes(range.size_bytes), Bytes(pass.settings.split_bytes));
    let cores = range.load.fast.cores;
    format!("{cores:.2} cores of {hot:.2}: not hot; {is} of {large}: not large")
}

fn cold(pass: &Pass<'_>, i: usize) -> String {
    let (now, after) = (pass.view.now_ms, Seconds(pass.settings.merge_after_ms));
    let Some(past) = pass.past(i) else { return "not seen yet".to_owned() };
    let Some(since) = past.cold_since_ms else {
        let load = &pass.range(i).load;
        let most = load.fast.cores.max(load.slow.cores);
        return format!("{most:.2} cores, cold is below {}", pass.settings.cold_cores);
    };
    let lasts = now.saturating_sub(since);
    if lasts < pass.settings.merge_after_ms {
        return format!("cold for {} of {after} before a merge", Seconds(lasts));
    }
    let neighbours = [i.checked_sub(1), (i + 1 < pass.view.ranges.len()).then_some(i + 1)];
    let sizes = neighbours.into_iter().flatten().map(|n| pass.range(n).size_bytes);
    let own = pass.range(i).size_bytes;
    match sizes.min() {
        None => "cold, but it has no neighbour".to_owned(),
        Some(least) if least.saturating_add(own) >= pass.settings.merge_bytes => format!(
            "cold, but with its smaller neighbour it would have {}, and {} is the limit",
            Bytes(least.saturating_add(own)),
            Bytes(pass.settings.merge_bytes)
        ),
        Some(_) => "cold, but its neighbours are not, or not for long enough".to_owned(),
    }
}

fn leader(pass: &Pass<'_>, i: usize) -> String {
    let mean = pass.mean_heat();
    let Some(stand) = pass.node(pass.leaders[i]) else { return "it has no leader".to_owned() };
    let (band, heat) = (pass.band(mean), stand.heat());
    let head = format!(
        "its leader {} carries {}, the mean is {}",
        stand.id(),
        Percent(heat),
        Percent(mean)
    );
    if heat < mean - band {
        return format!("{head}: it has nothing to give away");
    }
    format!("{head} and differences up to {} are even", Percent(band))
}

fn counts(pass: &Pass<'_>, i: usize) -> String {
    let nodes = pass.nodes.iter().filter(|stand| stand.may_receive).count().max(1);
    let all: usize = pass.nodes.iter().filter(|s| s.may_receive).map(|s| s.replicas).sum();
    let on = pass.members(i).iter().filter_map(|&n| pass.node(n));
    let counts: Vec<_> = on.map(|s| format!("{} has {}", s.id(), s.replicas)).collect();
    format!(
        "replicas are even: {}, the mean is {:.1}",
        counts.join(", "),
        all as f64 / nodes as f64
    )
}

fn disks(pass: &Pass<'_>, i: usize) -> String {
    let on = pass.members(i).iter().filter_map(|&n| pass.node(n));
    let used: Vec<_> = on.map(|s| format!("{} {}", s.id(), Percent(s.disk()))).collect();
    format!("disks are even: {}", used.join(", "))
}
