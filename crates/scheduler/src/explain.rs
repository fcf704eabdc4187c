//! What an operator who asks about one range is told.

use crate::pass::Pass;
use crate::rules::{why_not_merged, why_not_split};
use crate::{Decision, Liveness, Rule};
use isotherm_types::RangeId;

/// Where the range stands by the rules that concern it, in sentences.
pub(crate) fn explain(pass: &Pass<'_>, range: RangeId) -> Vec<Decision> {
    let Some(range) = pass.by_id.get(&range).copied() else { return Vec::new() };
    let id = range.descriptor.id;
    let said = |rule, reason: String| Decision { range: id, rule, action: None, reason };
    let mut all = Vec::new();
    if !pass.settings.enabled {
        all.push(said(Rule::Split, "scheduler.enabled is false: nothing is decided".to_owned()));
    }
    if let Some(why) = pass.busy(range) {
        all.push(said(Rule::Repair, why));
    }
    let lost =
        range.descriptor.replicas.iter().filter(|r| {
            pass.node(r.node).is_some_and(|n| matches!(n.liveness, Liveness::Down { .. }))
        });
    for replica in lost {
        all.push(said(Rule::Repair, format!("its replica on {} is lost", replica.node)));
    }
    all.push(said(Rule::Split, why_not_split(pass, range)));
    all.push(said(Rule::Merge, why_not_merged(pass, range)));
    if let Some(leader) = range.leader
        && let Some(book) = pass.books.get(&leader)
    {
        let mean = crate::rules::mean_use(pass) * 100.0;
        let share = book.use_share() * 100.0;
        let text = if share > mean * (1.0 + pass.settings.tolerance) {
            format!(
                "its leader {leader} uses {share:.0} % of its CPU for what it leads, the mean is \
                 {mean:.0} %; {}",
                crate::rules::why_not_handed_over(pass, range)
            )
        } else {
            format!(
                "its leader {leader} uses {share:.0} % of its CPU for what it leads, the mean is \
                 {mean:.0} %: nothing to even out"
            )
        };
        all.push(said(Rule::LeaderLoad, text));
    }
    all
}
