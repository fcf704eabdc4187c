//! Disks fill evenly.

use crate::pass::{Pass, disk_share};
use crate::{Action, Rule};
use isotherm_types::NodeId;

/// From this share on a disk is relieved, if another is emptier by as much as [`GAP`].
const FULL: f64 = 0.9;
const GAP: f64 = 0.1;

/// Moves the largest cold replica off each disk that is nearly full.
pub(crate) fn disk(pass: &mut Pass<'_>) {
    let share = |pass: &Pass<'_>, node: NodeId| pass.node(node).map_or(0.0, disk_share);
    let full: Vec<NodeId> = pass
        .serving()
        .map(|(node, _)| node)
        .filter(|node| share(pass, *node) > FULL && pass.has_room_out(*node))
        .collect();
    for from in full {
        let mut ranges: Vec<_> =
            pass.view.ranges.iter().filter(|r| r.descriptor.replica_on(from).is_some()).collect();
        ranges.sort_by_key(|r| (std::cmp::Reverse(r.size_bytes), r.descriptor.id));
        for range in ranges.into_iter().filter(|r| r.leader != Some(from)) {
            if pass.busy(range).is_some() || pass.settling(range, pass.settings.settle_ms).is_some()
            {
                continue;
            }
            let hosts = pass.books.keys().copied().filter(|node| {
                pass.may_host(*node)
                    && pass.has_room_in(*node)
                    && range.descriptor.replica_on(*node).is_none()
                    && pass.keeps_diversity(range, from, *node)
                    && share(pass, *node) + GAP < share(pass, from)
            });
            let emptiest =
                hosts.min_by(|a, b| share(pass, *a).total_cmp(&share(pass, *b)).then(a.cmp(b)));
            let Some(to) = emptiest else { continue };
            let reason = format!(
                "the disk of {from} is {:.0} % full, that of {to} {:.0} %",
                share(pass, from) * 100.0,
                share(pass, to) * 100.0
            );
            let action = Action::Move { range: range.descriptor.id, from, to };
            pass.act(Rule::Disk, action, reason);
            break;
        }
    }
}
