//! Leaders of hot ranges spread over nodes: a hand-over moves no data, so it comes before moves.
//!
//! A node outside of the band around the mean gives away what fits: the hottest range that leaves
//! both sides within half of the band. If nothing fits, the one hand-over that helps most, if it
//! closes a quarter of the gap or more. One range that carries the node is not handed around: the
//! heat would only be elsewhere. Starting at the band and stopping at half of it is the hysteresis.

use crate::figures::{Percent, Seconds};
use crate::pass::Pass;
use crate::stand::Stand;
use crate::{Action, Rule};

/// Ranges of one node that are looked at when nothing fits.
const LOOKS_MAX: usize = 64;

/// Evens out what leaders cost.
pub(crate) fn run(pass: &mut Pass<'_>) {
    let mean = pass.mean_heat();
    let band = pass.band(mean);
    let is_short = pass.nodes.iter().any(|stand| stand.may_lead && stand.heat() < mean - band);
    let bar = if is_short { mean } else { mean + band };
    let all = (0u32..).zip(&pass.nodes);
    let mut over: Vec<_> = all
        .filter(|(_, stand)| stand.may_lead && stand.heat() > bar)
        .map(|(n, stand)| (n, stand.heat()))
        .collect();
    over.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut led = led_by(pass, over.iter().map(|&(n, _)| n));
    for (from, _) in over {
        let ranges = std::mem::take(&mut led[from as usize]);
        relieve(pass, from, &ranges, mean, band);
    }
}

/// What each of `nodes` leads, hottest first.
pub(crate) fn led_by(pass: &Pass<'_>, nodes: impl Iterator<Item = u32>) -> Vec<Vec<u32>> {
    let mut is_asked = vec![false; pass.nodes.len()];
    for n in nodes {
        is_asked[n as usize] = true;
    }
    let mut led: Vec<Vec<u32>> = vec![Vec::new(); pass.nodes.len()];
    for (i, &leader) in (0u32..).zip(&pass.leaders) {
        if is_asked.get(leader as usize).copied().unwrap_or(false) {
            led[leader as usize].push(i);
        }
    }
    for ranges in &mut led {
        ranges.sort_by(|&a, &b| {
            pass.cores[b as usize].total_cmp(&pass.cores[a as usize]).then(a.cmp(&b))
        });
    }
    led
}

/// A hand-over that is possible, and where both sides would be.
struct Offer {
    i: usize,
    to: u32,
    source: f64,
    target: f64,
}

fn relieve(pass: &mut Pass<'_>, from: u32, ranges: &[u32], mean: f64, band: f64) {
    let slight = slight(&pass.nodes[from as usize], pass, mean);
    let mut ordered = 0;
    for &i in ranges {
        let (i, stand) = (i as usize, &pass.nodes[from as usize]);
        let heat = stand.heat();
        let is_done = heat <= mean || stand.handing >= pass.settings.transfers_per_node;
        if is_done || pass.cores[i] < slight {
            break;
        }
        let Some(offer) = offer(pass, i, from) else { continue };
        let helps = heat > mean + band || pass.nodes[offer.to as usize].heat() < mean - band;
        let fits = offer.target <= mean + band / 2.0 && offer.source >= mean - band / 2.0;
        if helps && fits && offer.target < heat {
            hand_over(pass, &offer, from, mean);
            ordered += 1;
        }
    }
    let stand = &pass.nodes[from as usize];
    let heat = stand.heat();
    if heat <= mean + band || ordered > 0 || stand.handing >= pass.settings.transfers_per_node {
        return;
    }
    let offers = ranges.iter().take(LOOKS_MAX).filter_map(|&i| offer(pass, i as usize, from));
    let gap = |offer: &Offer| heat - pass.nodes[offer.to as usize].heat();
    let helps = |offer: &Offer| (offer.source - offer.target).abs() <= 0.75 * gap(offer);
    let worst = |offer: &Offer| offer.source.max(offer.target);
    let best = offers.filter(helps).min_by(|a, b| worst(a).total_cmp(&worst(b)));
    match best {
        Some(offer) => hand_over(pass, &offer, from, mean),
        None => explain(pass, from, ranges, mean, band),
    }
}

/// What a range has to cost, in cores, for its hand-over to be worth an interruption of its writes:
/// an eighth of what is too much, or is missing elsewhere. Of a node that leads many ranges, each
/// of them small, a quarter of what they cost on average: there it takes many to show.
fn slight(source: &Stand<'_>, pass: &Pass<'_>, mean: f64) -> f64 {
    let coolest = pass.nodes.iter().filter(|stand| stand.may_lead).map(Stand::heat);
    let gap = (source.heat() - mean).max(mean - coolest.fold(mean, f64::min));
    let usual = source.cores / source.leaders.max(1) as f64;
    (gap * source.capacity() / 8.0).min(usual / 4.0)
}

/// The coolest node that could lead `i`, if it may be handed over at all.
fn offer(pass: &Pass<'_>, i: usize, from: u32) -> Option<Offer> {
    let now = pass.view.now_ms;
    let past = pass.past(i)?;
    if !pass.is_free[i] || past.is_led_newly(now, pass.settings) {
        return None;
    }
    let (cores, source) = (pass.cores[i], &pass.nodes[from as usize]);
    let after = |n: u32| (pass.nodes[n as usize].cores + cores) / pass.nodes[n as usize].capacity();
    let to = pass
        .heirs(i)
        .filter(|&n| !past.left_lately(pass.nodes[n as usize].id(), now, pass.settings))
        .min_by(|&a, &b| after(a).total_cmp(&after(b)).then(a.cmp(&b)))?;
    Some(Offer { i, to, source: (source.cores - cores) / source.capacity(), target: after(to) })
}

fn hand_over(pass: &mut Pass<'_>, offer: &Offer, from: u32, mean: f64) {
    let (range, to) = (pass.id(offer.i), pass.name(offer.to));
    let reason = format!(
        "{:.2} cores; {} carries {} and {to} {}, the mean is {}; {} and {} then",
        pass.cores[offer.i],
        pass.name(from),
        Percent(pass.nodes[from as usize].heat()),
        Percent(pass.nodes[offer.to as usize].heat()),
        Percent(mean),
        Percent(offer.source),
        Percent(offer.target)
    );
    pass.order(offer.i, Rule::LeaderLoad, Action::Transfer { range, to }, reason);
}

/// Says of the hottest range of a node that stays too hot why nothing is done.
fn explain(pass: &mut Pass<'_>, from: u32, ranges: &[u32], mean: f64, band: f64) {
    let asked = ranges.iter().map(|&i| i as usize).find(|&i| pass.is_asked(i));
    let Some(i) = asked else { return };
    pass.decline(i, Rule::LeaderLoad, |pass| why_it_stays(pass, i, from, mean, band));
}

fn why_it_stays(pass: &Pass<'_>, i: usize, from: u32, mean: f64, band: f64) -> String {
    let (now, cores) = (pass.view.now_ms, pass.cores[i]);
    let head = format!(
        "{} carries {}, the mean is {} and up to {} is even",
        pass.name(from),
        Percent(pass.nodes[from as usize].heat()),
        Percent(mean),
        Percent(mean + band)
    );
    if !pass.is_free[i] {
        return format!("{head}; {}", pass.why_not_free(i));
    }
    let past = pass.past(i);
    if let Some(at) =
        past.filter(|past| past.is_led_newly(now, pass.settings)).and_then(|p| p.leader_since_ms)
    {
        let (age, settle) = (Seconds(now.saturating_sub(at)), Seconds(pass.settings.settle_ms));
        return format!("{head}; its leader changed {age} ago, settling for {settle}");
    }
    match offer(pass, i, from) {
        Some(_) if cores < slight(&pass.nodes[from as usize], pass, mean) => format!(
            "{head}, but its {cores:.2} cores are too few to show: handing it over would not help"
        ),
        Some(offer) => format!(
            "{head}, but no better node: with its {cores:.2} cores {} would carry {} instead, and {} \
             keep {}",
            pass.name(offer.to),
            Percent(offer.target),
            pass.name(from),
            Percent(offer.source)
        ),
        None if pass.heirs(i).next().is_some() => {
            let lately = Seconds(pass.settings.return_after_ms);
            format!("{head}, but it left its other nodes within the last {lately}: no to and fro")
        }
        None => format!("{head}, but no other voter is live on a node that may lead"),
    }
}
