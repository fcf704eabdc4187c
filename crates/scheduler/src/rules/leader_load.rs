//! Leaders of hot ranges spread over nodes: a hand-over moves no data, so it comes before moves.
//!
//! A node outside of the band around the mean gives away what fits: the hottest range that leaves
//! both sides within half of the band. If nothing fits, the one hand-over that helps most, if it
//! closes a quarter of the gap or more. One range that carries the node is not handed around: the
//! heat would only be elsewhere. Starting at the band and stopping at half of it is the hysteresis.
//!
//! A node that leads many small ranges may still be stuck: all nodes that could take them have as
//! much as they should. Then these make room ([`super::room`]).

use crate::figures::{Percent, Seconds};
use crate::pass::Pass;
use crate::rules::room::make_room;
use crate::stand::Stand;
use crate::{Action, Rule};

/// Ranges of one node that are looked at when nothing fits.
pub(super) const LOOKS_MAX: usize = 64;

/// Evens out what leaders cost.
pub(crate) fn run(pass: &mut Pass<'_>) {
    let mean = pass.mean_heat();
    let band = pass.band(mean);
    let is_short = pass.nodes.iter().any(|stand| stand.may_lead && stand.heat() < mean - band);
    let bar = if is_short { mean - band / 2.0 } else { mean + band };
    let all = (0u32..).zip(&pass.nodes);
    let mut over: Vec<_> = all
        .filter(|(_, stand)| stand.may_lead && stand.heat() > bar)
        .map(|(n, stand)| (n, stand.heat()))
        .collect();
    over.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut led = led_by(pass, over.iter().map(|&(n, _)| n));
    let mut stuck = Vec::new();
    for (from, _) in over {
        let ranges = std::mem::take(&mut led[from as usize]);
        if !relieve(pass, from, &ranges, mean, band) {
            stuck.push((from, ranges));
        }
    }
    if stuck.is_empty() {
        return;
    }
    let led = led_by(pass, 0..pass.nodes.len() as u32);
    for (from, ranges) in stuck {
        if !make_room(pass, from, &ranges, &led, mean, band) {
            explain(pass, from, &ranges, mean, band);
        }
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
pub(super) struct Offer {
    pub(super) i: usize,
    pub(super) to: u32,
    pub(super) source: f64,
    pub(super) target: f64,
}

/// Hands over what fits; whether the node is not too hot any more, or at least something was done.
fn relieve(pass: &mut Pass<'_>, from: u32, ranges: &[u32], mean: f64, band: f64) -> bool {
    let slight = slight(pass, from, ranges, mean, band);
    let mut ordered = 0;
    for &i in ranges {
        let (i, stand) = (i as usize, &pass.nodes[from as usize]);
        let heat = stand.heat();
        let is_done =
            heat <= mean - band / 2.0 || stand.handing >= pass.settings.transfers_per_node;
        if is_done || pass.cores[i] < slight {
            break;
        }
        let Some(offer) = offer(pass, i, from) else { continue };
        let is_short = pass.nodes[offer.to as usize].heat() < mean - band;
        let helps = is_short || heat > mean + band;
        let fits = offer.target <= mean + band / 2.0 && offer.source >= mean - band / 2.0;
        if helps && fits && offer.target < heat {
            hand_over(pass, &offer, from, mean);
            ordered += 1;
        }
    }
    let stand = &pass.nodes[from as usize];
    let heat = stand.heat();
    if heat <= mean + band || ordered > 0 || stand.handing >= pass.settings.transfers_per_node {
        return true;
    }
    let offers = ranges.iter().take(LOOKS_MAX).filter_map(|&i| offer(pass, i as usize, from));
    let gap = |offer: &Offer| heat - pass.nodes[offer.to as usize].heat();
    let helps = |offer: &Offer| (offer.source - offer.target).abs() <= 0.75 * gap(offer);
    let worst = |offer: &Offer| offer.source.max(offer.target);
    let best = offers.filter(helps).min_by(|a, b| worst(a).total_cmp(&worst(b)));
    best.inspect(|offer| hand_over(pass, offer, from, mean)).is_some()
}

/// What a range has to cost, in cores, for its hand-over to be worth an interruption of its writes:
/// an eighth of what is too much, or is missing elsewhere. Of a node that leads many ranges, each
/// of them small, a quarter of what they cost on average: there it takes many to show. What is
/// larger than the gap does not count in that average if the others are enough to close it.
pub(super) fn slight(pass: &Pass<'_>, from: u32, ranges: &[u32], mean: f64, band: f64) -> f64 {
    let source = &pass.nodes[from as usize];
    let coolest = pass.nodes.iter().filter(|stand| stand.may_lead).map(Stand::heat);
    let gap = (source.heat() - mean).max(mean - coolest.fold(mean, f64::min)) * source.capacity();
    let too_much = (source.heat() - mean - band) * source.capacity();
    let of_all = source.cores / source.leaders.max(1) as f64;
    let fitting = ranges.iter().map(|&i| pass.cores[i as usize]).filter(|&cores| cores <= gap);
    let (count, sum) = fitting.fold((0, 0.0), |(count, sum), cores| (count + 1, sum + cores));
    let is_enough = too_much > 0.0 && sum >= too_much;
    let usual = if is_enough { sum / f64::from(count) } else { of_all };
    (gap / 8.0).min(usual / 4.0)
}

/// The coolest node that could lead `i`, if it may be handed over at all.
pub(super) fn offer(pass: &Pass<'_>, i: usize, from: u32) -> Option<Offer> {
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
    pass.decline(i, Rule::LeaderLoad, |pass| why_it_stays(pass, i, from, ranges, mean, band));
}

fn why_it_stays(
    pass: &Pass<'_>,
    i: usize,
    from: u32,
    ranges: &[u32],
    mean: f64,
    band: f64,
) -> String {
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
        Some(_) if cores < slight(pass, from, ranges, mean, band) => format!(
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
