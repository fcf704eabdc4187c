//! Replicas of hot ranges spread over nodes: for heat that no hand-over can even out, because all
//! nodes that have the range are hot.
//!
//! A node must have been too hot for three times the time that a change settles in: hand-overs, one
//! making room for the next, may still be enough.
//!
//! A follower moves from the hottest node to the coolest one, and the leader follows when it has
//! arrived. Its heat is booked there from the start, so that no other range is sent for the same gap.

use crate::destination::Spread;
use crate::figures::{Bytes, Percent};
use crate::pass::{NOWHERE, Pass};
use crate::rules::leader_load::led_by;
use crate::stand::Stand;
use crate::{Action, Rule};

/// Ranges of one node that are looked at.
const LOOKS_MAX: usize = 8;

/// Orders moves for what hand-overs did not even out.
pub(crate) fn run(pass: &mut Pass<'_>) {
    let mean = pass.mean_heat();
    let band = pass.band(mean);
    // Hand-overs may be enough, one after the other: they are given some time.
    let (now, patience) = (pass.view.now_ms, pass.settings.settle_ms.saturating_mul(3));
    let mut over = Vec::new();
    for (n, stand) in (0u32..).zip(&pass.nodes) {
        let is_over = stand.may_lead && stand.heat() > mean + band;
        if pass.memory.note_over(stand.id(), is_over, now) >= patience && is_over {
            over.push((n, stand.heat()));
        }
    }
    over.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut led = led_by(pass, over.iter().map(|&(n, _)| n));
    for (from, _) in over {
        let is_target = |stand: &Stand<'_>| {
            stand.may_receive && stand.heat() < mean - band && !pass.is_receiving_enough(stand)
        };
        if pass.focus.is_none() && !pass.nodes.iter().any(is_target) {
            break;
        }
        let ranges = std::mem::take(&mut led[from as usize]);
        for i in ranges.into_iter().take(LOOKS_MAX) {
            let heat = pass.nodes[from as usize].heat();
            if heat <= mean + band {
                break;
            }
            look(pass, i as usize, from, mean, band);
        }
    }
}

fn look(pass: &mut Pass<'_>, i: usize, from: u32, mean: f64, band: f64) {
    let (cores, now) = (pass.cores[i], pass.view.now_ms);
    let source = &pass.nodes[from as usize];
    let (heat, left) = (source.heat(), (source.cores - cores) / source.capacity());
    // A range that hardly shows is not worth sending its data.
    if cores / source.capacity() < band / 4.0
        || !pass.is_free[i]
        || !pass.is_whole(i)
        || pass.is_aligning(i)
    {
        return;
    }
    if pass.past(i).is_some_and(|past| past.is_settling(now)) || pass.is_sending_enough(i) {
        return;
    }
    let closes = |stand: &Stand<'_>| {
        let (is, then) = (stand.heat(), (stand.cores + cores) / stand.capacity());
        is < mean - band && (left - then).abs() <= 0.75 * (heat - is)
    };
    if pass.heirs(i).any(|n| closes(&pass.nodes[n as usize])) {
        // A hand-over is enough, when the range has settled.
        return;
    }
    // A follower makes room, the one on the hottest node first.
    let mut followers: Vec<_> =
        pass.members(i).iter().copied().filter(|&n| n != from && n != NOWHERE).collect();
    followers.sort_by(|&a, &b| {
        let heat = |n: u32| pass.node(n).map_or(0.0, Stand::heat);
        heat(b).total_cmp(&heat(a)).then(a.cmp(&b))
    });
    let mut refused = None;
    for leaves in followers {
        match pass.destination(i, leaves, Spread::Kept, |stand| stand.heat(), closes) {
            Ok(to) => {
                let (range, gone, gets) = (pass.id(i), pass.name(leaves), pass.name(to));
                let reason = format!(
                    "{cores:.2} cores; {} carries {}, the mean is {}, and its other nodes are no \
                     cooler; {gets} carries {} and is to lead it; {} to send",
                    pass.name(from),
                    Percent(heat),
                    Percent(mean),
                    Percent(pass.nodes[to as usize].heat()),
                    Bytes(pass.range(i).size_bytes)
                );
                let action = Action::Move { range, from: gone, to: gets };
                return pass.order_with(i, Rule::ReplicaLoad, action, reason, |o| o.leads = true);
            }
            Err(why) => refused = Some(why),
        }
    }
    if let Some(refused) = refused {
        pass.decline(i, Rule::ReplicaLoad, |pass| {
            format!(
                "{cores:.2} cores; {} carries {}, the mean is {}, but no node is better: {refused}",
                pass.name(from),
                Percent(heat),
                Percent(mean)
            )
        });
    }
}
