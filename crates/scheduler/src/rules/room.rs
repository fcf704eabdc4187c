//! Room for what a node has too much of, when all nodes that could take it have enough already.
//!
//! They hand on small ranges of their own to nodes that have room; or those do that could take
//! theirs, and so on: a chain, found breadth first and walked from its end, a link in each pass.
//! What fits into half of the band is small: with larger ranges, a chain would only move the
//! problem.

use crate::figures::Percent;
use crate::pass::Pass;
use crate::rules::leader_load::{LOOKS_MAX, offer, slight};
use crate::{Action, Rule};

/// A node that has enough, and the range that it would take if it had room.
struct Full {
    node: u32,
    waits: usize,
    of: u32,
}

/// Nodes that could take small ranges of `from`, if they had room, make some; or those that could
/// take theirs, and so on. Whether any did: what is behind them follows in later passes.
pub(super) fn make_room(
    pass: &mut Pass<'_>,
    from: u32,
    ranges: &[u32],
    led: &[Vec<u32>],
    mean: f64,
    band: f64,
) -> bool {
    let mut known = vec![from];
    let mut next = full_heirs(pass, from, ranges, mean, band);
    let mut ordered = 0;
    while ordered == 0 && !next.is_empty() && known.len() < LOOKS_MAX {
        let level = std::mem::take(&mut next);
        for full in level {
            if known.contains(&full.node) {
                continue;
            }
            known.push(full.node);
            let ranges = &led[full.node as usize];
            let given = hand_on(pass, &full, ranges, mean, band);
            ordered += given;
            if given == 0 {
                next.extend(full_heirs(pass, full.node, ranges, mean, band));
            }
        }
    }
    ordered > 0
}

/// Whether `i` is worth a hand-over, and fits into a half of the band.
fn is_small(pass: &Pass<'_>, i: usize, of: u32, slight: f64, band: f64) -> bool {
    let cores = pass.cores[i];
    cores >= slight && cores / pass.nodes[of as usize].capacity() <= band / 2.0
}

/// The nodes that could take small ranges of `of`, if they had not enough already.
fn full_heirs(pass: &Pass<'_>, of: u32, ranges: &[u32], mean: f64, band: f64) -> Vec<Full> {
    let slight = slight(pass, of, ranges, mean, band);
    let now = pass.view.now_ms;
    let may_go =
        |i: usize| pass.past(i).filter(|p| pass.is_free[i] && !p.is_led_newly(now, pass.settings));
    let small = ranges.iter().map(|&i| i as usize).filter(|&i| is_small(pass, i, of, slight, band));
    let mut full: Vec<Full> = Vec::new();
    for waits in small.take(LOOKS_MAX) {
        let Some(past) = may_go(waits) else { continue };
        for node in pass.heirs(waits) {
            let stand = &pass.nodes[node as usize];
            let is_full = stand.heat() > mean
                && stand.heat() <= mean + band
                && !past.left_lately(stand.id(), now, pass.settings);
            if is_full && !full.iter().any(|known| known.node == node) {
                full.push(Full { node, waits, of });
            }
        }
    }
    full
}

/// A full node hands small ranges to nodes with room until it has some itself; how many.
fn hand_on(pass: &mut Pass<'_>, full: &Full, ranges: &[u32], mean: f64, band: f64) -> usize {
    let &Full { node: through, waits, of } = full;
    let slight = slight(pass, through, ranges, mean, band);
    let mut ordered = 0;
    for i in ranges.iter().map(|&i| i as usize) {
        let stand = &pass.nodes[through as usize];
        if stand.heat() <= mean || stand.handing >= pass.settings.transfers_per_node {
            break;
        }
        if !is_small(pass, i, through, slight, band) {
            continue;
        }
        let Some(offer) = offer(pass, i, through) else { continue };
        // Less than who gives it had: each such step evens out, so that none is undone.
        if offer.target > mean + band / 4.0 || offer.target >= pass.nodes[through as usize].heat() {
            continue;
        }
        let (range, to) = (pass.id(i), pass.name(offer.to));
        let reason = format!(
            "{:.2} cores; {} carries {} and makes room for {} of {}, which carries {}; the mean is {}, \
             {to} carries {} then",
            pass.cores[i],
            pass.name(through),
            Percent(pass.nodes[through as usize].heat()),
            pass.id(waits),
            pass.name(of),
            Percent(pass.nodes[of as usize].heat()),
            Percent(mean),
            Percent(offer.target)
        );
        pass.order(i, Rule::LeaderLoad, Action::Transfer { range, to }, reason);
        ordered += 1;
    }
    ordered
}
