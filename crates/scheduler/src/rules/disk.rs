//! Disks fill evenly: replicas leave the fullest node when it is nearly full or far ahead.
//!
//! Numbers of replicas stay within their band unless the disk is really full, so that this rule and
//! the one before do not work against each other.

use crate::destination::Spread;
use crate::figures::{Bytes, Percent};
use crate::pass::Pass;
use crate::rules::count::Fair;
use crate::stand::Stand;
use crate::{Action, Rule};

/// Used shares may differ by this much.
const SPREAD_MAX: f64 = 0.2;
/// A disk below this share is of no concern.
const USED_MIN: f64 = 0.3;
/// Ranges of one node that are looked at.
const LOOKS_MAX: usize = 32;

/// Relieves the fullest disks.
pub(crate) fn run(pass: &mut Pass<'_>) {
    let full = pass.settings.disk_full;
    let open = |stand: &&Stand<'_>| stand.may_receive && stand.view.disk_total_bytes > 0;
    let emptiest = pass.nodes.iter().filter(open).map(Stand::disk).fold(f64::MAX, f64::min);
    let is_over = |stand: &Stand<'_>| {
        let used = stand.disk();
        stand.view.disk_total_bytes > 0
            && used > USED_MIN
            && (used > full || used > emptiest + SPREAD_MAX)
            && used > emptiest + SPREAD_MAX / 4.0
    };
    let all = (0u32..).zip(&pass.nodes);
    let mut over: Vec<_> =
        all.filter(|(_, stand)| is_over(stand)).map(|(n, stand)| (n, stand.disk())).collect();
    if over.is_empty() {
        return;
    }
    over.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let fair = Fair::of(pass, |stand| stand.replicas, |stand| stand.may_receive);
    for (from, _) in over {
        relieve(pass, from, fair);
    }
}

fn relieve(pass: &mut Pass<'_>, from: u32, fair: Fair) {
    let mut ranges: Vec<_> = (0..pass.view.ranges.len())
        .filter(|&i| {
            pass.is_free[i]
                && pass.is_whole(i)
                && !pass.is_aligning(i)
                && pass.members(i).contains(&from)
        })
        .collect();
    // Followers first, and what frees most.
    ranges.sort_by_key(|&i| {
        (pass.leaders[i] == from, std::cmp::Reverse(pass.range(i).size_bytes), i)
    });
    let mut moved = 0;
    for i in ranges.into_iter().take(LOOKS_MAX) {
        if moved == pass.settings.moves_per_node {
            return;
        }
        let (bytes, source) = (pass.range(i).size_bytes, &pass.nodes[from as usize]);
        if pass.is_sending_enough(i) || bytes == 0 {
            continue;
        }
        let (used, is_full) = (source.disk(), source.disk() > pass.settings.disk_full);
        let left = used - bytes as f64 / source.view.disk_total_bytes.max(1) as f64;
        let helps = |stand: &Stand<'_>| {
            let then = stand.disk() + bytes as f64 / stand.view.disk_total_bytes.max(1) as f64;
            then < left && (is_full || stand.replicas as f64 + 1.0 <= fair.most)
        };
        match pass.destination(i, from, Spread::Kept, |stand| stand.disk(), helps) {
            Ok(to) => {
                let (range, gone, gets) = (pass.id(i), pass.name(from), pass.name(to));
                let reason = format!(
                    "{}; the disk of {gone} is {} full, that of {gets} {}",
                    Bytes(bytes),
                    Percent(used),
                    Percent(pass.nodes[to as usize].disk())
                );
                pass.order(i, Rule::Disk, Action::Move { range, from: gone, to: gets }, reason);
                moved += 1;
            }
            Err(refused) => pass.decline(i, Rule::Disk, |pass| {
                format!(
                    "the disk of {} is {} full, but no node is better: {refused}",
                    pass.name(from),
                    Percent(used)
                )
            }),
        }
    }
}
