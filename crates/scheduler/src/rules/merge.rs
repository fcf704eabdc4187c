//! Cold neighbours become one.

use crate::memory::heat_max;
use crate::pass::Pass;
use crate::{Action, RangeView, Rule};
use isotherm_types::NodeId;

/// Merges (and moves for the sake of one) that are under way at a time.
const MERGES_MAX: usize = 4;

/// Merges pairs of cold neighbours, and brings their replicas to the same nodes first.
pub(crate) fn merge(pass: &mut Pass<'_>) {
    let ranges = &pass.view.ranges;
    let mut count = ranges.len();
    let mut merges = 0;
    let mut pairs = ranges.windows(2);
    while let Some([left, right]) = pairs.next() {
        if merges >= MERGES_MAX || count <= pass.settings.ranges_min {
            return;
        }
        if why_not_pair(pass, left, right).is_some() {
            continue;
        }
        let id = left.descriptor.id;
        if let Some(why) = pass.busy(left).or_else(|| pass.busy(right)) {
            pass.decline(
                Rule::Merge,
                id,
                format!("it and its right neighbour are cold, but {why}"),
            );
            continue;
        }
        let cold = pass.settings.merge_after_ms / 1000;
        let right_id = right.descriptor.id;
        match misplaced(left, right) {
            None => {
                let size = (left.size_bytes + right.size_bytes) >> 20;
                let reason = format!(
                    "both were cold for {cold} s and are {size} MiB together: {right_id} is absorbed"
                );
                pass.act(Rule::Merge, Action::Merge { left: id, right: right_id }, reason);
                // The next pair has another left.
                pairs.next();
                count -= 1;
                merges += 1;
            }
            Some((from, to)) => {
                if !pass.may_host(to) || !pass.has_room_in(to) || !pass.has_room_out(from) {
                    continue;
                }
                let range = right_id;
                let reason = format!(
                    "it and {id} were cold for {cold} s: their replicas come to the same nodes \
                     before they become one"
                );
                pass.act(Rule::Merge, Action::Move { range, from, to }, reason);
                merges += 1;
            }
        }
    }
}

/// Why a range and its right neighbour stay two.
pub(crate) fn why_not_merged(pass: &Pass<'_>, range: &RangeView) -> String {
    let ranges = &pass.view.ranges;
    let at = ranges.iter().position(|r| r.descriptor.id == range.descriptor.id);
    let Some(right) = at.and_then(|at| ranges.get(at + 1)) else {
        return "it has no neighbour to the right".to_owned();
    };
    if ranges.len() <= pass.settings.ranges_min {
        return format!("there are {} ranges, with which the cluster began", ranges.len());
    }
    why_not_pair(pass, range, right)
        .unwrap_or_else(|| "it and its right neighbour are cold: they are to become one".to_owned())
}

fn why_not_pair(pass: &Pass<'_>, left: &RangeView, right: &RangeView) -> Option<String> {
    let now = pass.view.now_ms;
    let after = pass.settings.merge_after_ms;
    for range in [left, right] {
        let id = range.descriptor.id;
        match pass.memory.cold_for(id, now) {
            None => {
                let (cores, cold) = (heat_max(range), pass.settings.cold_cores);
                return Some(format!("{id} costs {cores:.3} cores: cold begins below {cold}"));
            }
            Some(cold) if cold < after => {
                let (cold, after) = (cold / 1000, after / 1000);
                return Some(format!("{id} is cold for {cold} s of {after} s"));
            }
            Some(_) => {}
        }
        if let Some(ago) = pass.memory.cut(id, now)
            && ago < after
        {
            return Some(format!("{id} came out of a cut {} s ago", ago / 1000));
        }
    }
    let (size, limit) = (left.size_bytes + right.size_bytes, pass.settings.merge_bytes);
    (size > limit).then(|| {
        let (size, limit) = (size >> 20, limit >> 20);
        format!("together they would be {size} MiB of {limit} MiB")
    })
}

/// A replica of the right range that is where the left has none, and where it should go.
fn misplaced(left: &RangeView, right: &RangeView) -> Option<(NodeId, NodeId)> {
    let (l, r) = (&left.descriptor, &right.descriptor);
    let from = r.replicas.iter().find(|replica| l.replica_on(replica.node).is_none())?;
    let to = l.replicas.iter().find(|replica| r.replica_on(replica.node).is_none())?;
    Some((from.node, to.node))
}
