//! Leaders of hot ranges spread over nodes: a transfer moves no data.

use crate::memory::heat;
use crate::pass::Pass;
use crate::{Action, RangeView, Rule};
use isotherm_types::NodeId;
use std::collections::HashMap;

/// A transfer must take at least this many cores off the fuller of the two nodes.
const GAIN_MIN: f64 = 0.02;
/// And at least this share of what the node carries.
const GAIN_SHARE: f64 = 0.05;
/// Ranges below this cost are not worth a transfer.
const WORTH: f64 = 0.002;
/// What a range costs is believed again after this share of the settle time.
const PATIENCE: f64 = 0.5;

/// Takes heat off the fullest node, and the next, as long as it gets more even.
pub(crate) fn leader_load(pass: &mut Pass<'_>) {
    let nodes = pass.serving().count();
    if nodes < 2 {
        return;
    }
    let patience = (pass.settings.settle_ms as f64 * PATIENCE) as u64;
    // The ranges that each node leads, the hottest first.
    let mut led: HashMap<NodeId, Vec<&RangeView>> = HashMap::new();
    for range in &pass.view.ranges {
        if let Some(leader) = range.leader.filter(|_| heat(range) > WORTH) {
            led.entry(leader).or_default().push(range);
        }
    }
    for ranges in led.values_mut() {
        ranges.sort_by(|a, b| {
            heat(b).total_cmp(&heat(a)).then(a.descriptor.id.cmp(&b.descriptor.id))
        });
    }
    let mut given_up: Vec<NodeId> = Vec::new();
    for _ in 0..4 * nodes {
        let mean = mean_use(pass);
        let limit = mean * (1.0 + pass.settings.tolerance);
        let fullest = pass
            .serving()
            .filter(|(node, book)| book.use_share() > limit && !given_up.contains(node))
            .max_by(|(a, x), (b, y)| x.use_share().total_cmp(&y.use_share()).then(b.cmp(a)))
            .map(|(node, book)| (node, book.clone()));
        let Some((source, book)) = fullest else { return };
        let ranges = led.get(&source).map(Vec::as_slice).unwrap_or_default();
        if let Some((range, to, reason)) = best(pass, source, &book, ranges, patience) {
            pass.act(Rule::LeaderLoad, Action::Transfer { range, to }, reason);
        } else {
            if let Some(hottest) = ranges.first() {
                let why = why_not_handed_over(pass, hottest);
                pass.decline(Rule::LeaderLoad, hottest.descriptor.id, why);
            }
            given_up.push(source);
        }
    }
}

/// The mean use of the nodes that serve.
pub(crate) fn mean_use(pass: &Pass<'_>) -> f64 {
    let (cores, capacity) = pass
        .serving()
        .fold((0.0, 0.0), |(cores, capacity), (_, b)| (cores + b.cores, capacity + b.capacity));
    cores / f64::max(capacity, 1e-6)
}

/// The transfer that leaves the fuller of the two nodes least full.
fn best(
    pass: &Pass<'_>,
    source: NodeId,
    book: &crate::pass::Book,
    ranges: &[&RangeView],
    patience: u64,
) -> Option<(isotherm_types::RangeId, NodeId, String)> {
    let mut best: Option<(f64, &RangeView, NodeId)> = None;
    let gain = f64::max(GAIN_MIN, book.cores * GAIN_SHARE) / book.capacity.max(1e-6);
    for range in ranges {
        let cost = heat(range);
        let left = (book.cores - cost) / book.capacity.max(1e-6);
        // Colder ones leave it fuller than the best found so far.
        if best.is_some_and(|(full, ..)| left > full) {
            break;
        }
        if pass.busy(range).is_some() || pass.settling(range, patience).is_some() {
            continue;
        }
        for heir in pass.heirs(range) {
            let Some(other) = pass.books.get(&heir) else { continue };
            let full = f64::max(left, (other.cores + cost) / other.capacity.max(1e-6));
            if full < book.use_share() - gain && best.is_none_or(|(known, ..)| full < known) {
                best = Some((full, range, heir));
            }
        }
    }
    let (full, range, to) = best?;
    let reason = format!(
        "{source} uses {:.0} % of its CPU for what it leads, {to} {:.0} %, the mean is {:.0} %; {:.2} \
         cores go over, and the fuller of the two is at {:.0} % then",
        book.use_share() * 100.0,
        pass.books.get(&to).map_or(0.0, |b| b.use_share()) * 100.0,
        mean_use(pass) * 100.0,
        heat(range),
        full * 100.0
    );
    Some((range.descriptor.id, to, reason))
}

/// Why a range of a node that is too full stays where it is.
pub(crate) fn why_not_handed_over(pass: &Pass<'_>, range: &RangeView) -> String {
    let patience = (pass.settings.settle_ms as f64 * PATIENCE) as u64;
    let leader = range.leader.map_or_else(String::new, |n| n.to_string());
    if let Some(why) = pass.busy(range).or_else(|| pass.settling(range, patience)) {
        return format!("{leader} is fuller than the others, but {why}");
    }
    let cost = heat(range);
    let least = pass
        .heirs(range)
        .filter_map(|n| Some((n, pass.books.get(&n)?.use_share())))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    match least {
        None => format!("{leader} is fuller than the others, but no other live voter may lead it"),
        Some((node, share)) => format!(
            "no better node: {leader} is fuller than the others, but with its {cost:.2} cores {node} \
             (now at {:.0} %) would be as full",
            share * 100.0
        ),
    }
}
