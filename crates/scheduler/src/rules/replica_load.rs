//! Where transfers do not help because every voter of the hot ranges is on a full node, a replica
//! moves to an empty one; leadership follows by itself.

use super::leader_load::mean_use;
use crate::memory::heat;
use crate::pass::Pass;
use crate::{Action, Rule};
use isotherm_types::NodeId;

/// How much fuller than the mean a node must be, as a multiple of the tolerance.
const EXCESS: f64 = 2.0;
/// A move must promise at least this many cores.
const GAIN_MIN: f64 = 0.05;

/// Moves one replica of a hot range per full node.
pub(crate) fn replica_load(pass: &mut Pass<'_>) {
    let mean = mean_use(pass);
    let limit = mean * (1.0 + pass.settings.tolerance * EXCESS);
    let mut full: Vec<NodeId> =
        pass.serving().filter(|(_, b)| b.use_share() > limit).map(|(node, _)| node).collect();
    full.sort_by(|a, b| pass.books[b].use_share().total_cmp(&pass.books[a].use_share()));
    for source in full {
        let book = pass.books[&source].clone();
        let mut led: Vec<_> =
            pass.view.ranges.iter().filter(|r| r.leader == Some(source)).collect();
        led.sort_by(|a, b| heat(b).total_cmp(&heat(a)).then(a.descriptor.id.cmp(&b.descriptor.id)));
        for range in led {
            let d = &range.descriptor;
            let cost = heat(range);
            if cost < GAIN_MIN {
                break;
            }
            if pass.busy(range).is_some() || pass.settling(range, pass.settings.settle_ms).is_some()
            {
                continue;
            }
            // The follower on the fullest node goes; the leader stays until it can hand over.
            let from = d
                .replicas
                .iter()
                .map(|r| r.node)
                .filter(|node| *node != source && pass.has_room_out(*node))
                .max_by(|a, b| {
                    let share = |n| pass.books.get(n).map_or(0.0, |b| b.use_share());
                    share(a).total_cmp(&share(b)).then(b.cmp(a))
                });
            let Some(from) = from else { continue };
            let hosts = pass.books.iter().filter(|(node, _)| {
                pass.may_host(**node)
                    && pass.has_room_in(**node)
                    && d.replica_on(**node).is_none()
                    && pass.keeps_diversity(range, from, **node)
            });
            let emptiest = hosts
                .min_by(|(n, a), (m, b)| a.use_share().total_cmp(&b.use_share()).then(n.cmp(m)))
                .map(|(node, book)| (*node, book.clone()));
            let Some((to, other)) = emptiest else { continue };
            let then = (other.cores + cost) / other.capacity.max(1e-6);
            if then > book.use_share() - GAIN_MIN / book.capacity.max(1e-6)
                || then > limit.max(mean * 1.5)
            {
                continue;
            }
            let reason = format!(
                "{source} uses {:.0} % of its CPU for what it leads and no voter of the range is on \
                 an emptier node; {to} uses {:.0} % and can lead it once it has a replica",
                book.use_share() * 100.0,
                other.use_share() * 100.0
            );
            pass.act(Rule::ReplicaLoad, Action::Move { range: d.id, from, to }, reason);
            // What is coming counts as if it were there.
            if let Some(book) = pass.books.get_mut(&to) {
                book.cores += cost;
            }
            break;
        }
    }
}
