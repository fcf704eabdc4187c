//! Nodes have about as many replicas, and lead about as many ranges, as each other.
//!
//! Heat goes before number: a leader is handed over only if that leaves heat within its band, and
//! replicas that go are small and cold. A new node fills this way.

use crate::destination::Spread;
use crate::pass::{NOWHERE, Pass};
use crate::stand::Stand;
use crate::{Action, Rule};

/// Ranges of one node, and of all nodes in a pass, for which no target is found before the search
/// ends: each looks at all nodes.
const MISSES_PER_NODE: usize = 8;
const MISSES_MAX: usize = 512;

/// How many of something nodes should have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fair {
    /// On average.
    pub mean: f64,
    /// A node with more gives some away.
    pub most: f64,
    /// A node with less gets some.
    pub least: f64,
}

impl Fair {
    /// Over the nodes that `counts`.
    pub fn of(
        pass: &Pass<'_>,
        number: impl Fn(&Stand<'_>) -> usize,
        counts: impl Fn(&Stand<'_>) -> bool,
    ) -> Self {
        let (mut sum, mut nodes) = (0, 0usize);
        for stand in pass.nodes.iter().filter(|stand| counts(stand)) {
            sum += number(stand);
            nodes += 1;
        }
        let mean = sum as f64 / nodes.max(1) as f64;
        let off = (mean * pass.settings.tolerance).max(1.0);
        Self { mean, most: mean + off, least: mean - off }
    }
}

/// Leaders first: they move no data.
pub(crate) fn run(pass: &mut Pass<'_>) {
    leaders(pass);
    replicas(pass, None);
    // Labels may leave nodes of one domain with more than those of another. Inside each they are
    // even all the same.
    let mut domains: Vec<_> = pass.nodes.iter().map(|stand| stand.labels.clone()).collect();
    domains.sort();
    domains.dedup();
    if domains.len() > 1 {
        domains.iter().for_each(|domain| replicas(pass, Some(domain)));
    }
}

/// The nodes that have too many, or more than the mean if another one has too few; most first.
fn sources(
    pass: &Pass<'_>,
    fair: Fair,
    number: impl Fn(&Stand<'_>) -> usize,
    counts: impl Fn(&Stand<'_>) -> bool,
) -> Vec<u32> {
    let few = |stand: &Stand<'_>| counts(stand) && (number(stand) as f64) < fair.least;
    let is_short = pass.nodes.iter().any(few);
    let bar = if is_short { fair.mean } else { fair.most };
    let all = (0u32..).zip(&pass.nodes);
    let mut over: Vec<_> =
        all.filter(|(_, stand)| number(stand) as f64 > bar).map(|(n, _)| n).collect();
    over.sort_by_key(|&n| (std::cmp::Reverse(number(&pass.nodes[n as usize])), n));
    over
}

fn leaders(pass: &mut Pass<'_>) {
    let fair = Fair::of(pass, |stand| stand.leaders, |stand| stand.may_lead);
    let over = sources(pass, fair, |stand| stand.leaders, |stand| stand.may_lead);
    if over.is_empty() {
        return;
    }
    let mut led: Vec<Vec<u32>> = vec![Vec::new(); pass.nodes.len()];
    let is_over = flags(pass, &over);
    for (i, &leader) in (0u32..).zip(&pass.leaders) {
        if is_over.get(leader as usize).copied().unwrap_or(false) && pass.is_free[i as usize] {
            led[leader as usize].push(i);
        }
    }
    let mean_heat = pass.mean_heat();
    let band = pass.band(mean_heat);
    for from in over {
        let mut ranges = std::mem::take(&mut led[from as usize]);
        ranges.sort_by(|&a, &b| {
            pass.cores[a as usize].total_cmp(&pass.cores[b as usize]).then(a.cmp(&b))
        });
        for i in ranges {
            let stand = &pass.nodes[from as usize];
            let has = stand.leaders;
            if has as f64 <= fair.mean || stand.handing >= pass.settings.transfers_per_node {
                break;
            }
            hand_over(pass, i as usize, from, fair, mean_heat, band);
        }
    }
}

fn hand_over(pass: &mut Pass<'_>, i: usize, from: u32, fair: Fair, mean_heat: f64, band: f64) {
    let (now, cores, has) = (pass.view.now_ms, pass.cores[i], pass.nodes[from as usize].leaders);
    let past = pass.past(i);
    if past.is_some_and(|past| past.is_settling(now)) {
        return;
    }

    let fits = |n: &u32| {
        let stand = &pass.nodes[*n as usize];
        let helps = has as f64 > fair.most || (stand.leaders as f64) < fair.least;
        let heat = (stand.cores + cores) / stand.capacity();
        let is_slight = cores / stand.capacity() < band / 1000.0;
        helps
            && has >= stand.leaders + 2
            && (heat <= mean_heat + band / 2.0 || is_slight)
            && !past.is_some_and(|past| past.left_lately(stand.id(), now, pass.settings))
    };
    let to = pass.heirs(i).filter(fits).min_by_key(|&n| (pass.nodes[n as usize].leaders, n));
    let source = &pass.nodes[from as usize];
    let stays = (source.cores - cores) / source.capacity() >= mean_heat - band / 2.0
        || cores / source.capacity() < band / 1000.0;
    if let Some(to) = to.filter(|_| stays) {
        let (range, node) = (pass.id(i), pass.name(to));
        let reason = format!(
            "{} leads {has} ranges and {node} {}, the mean is {:.1}",
            pass.name(from),
            pass.nodes[to as usize].leaders,
            fair.mean
        );
        pass.order(i, Rule::Count, Action::Transfer { range, to: node }, reason);
    }
}

/// Over all nodes, or over those with these labels.
fn replicas(pass: &mut Pass<'_>, domain: Option<&Vec<u32>>) {
    let is_in = |stand: &Stand<'_>| domain.is_none_or(|labels| stand.labels == *labels);
    let counts = |stand: &Stand<'_>| stand.may_receive && is_in(stand);
    let fair = Fair::of(pass, |stand| stand.replicas, counts);
    let mut over = sources(pass, fair, |stand| stand.replicas, counts);
    over.retain(|&n| is_in(&pass.nodes[n as usize]));
    let open = |stand: &Stand<'_>| counts(stand) && !pass.is_receiving_enough(stand);
    let is_open = |stand: &Stand<'_>| open(stand) && (stand.replicas as f64) < fair.mean;
    if over.is_empty() || !pass.nodes.iter().any(is_open) {
        return;
    }
    let mut misses_left = MISSES_MAX;
    let is_over = flags(pass, &over);
    let mut on: Vec<Vec<u32>> = vec![Vec::new(); pass.nodes.len()];
    for i in 0..pass.view.ranges.len() {
        if pass.is_free[i] {
            for &n in pass.members(i) {
                if is_over.get(n as usize).copied().unwrap_or(false) {
                    on[n as usize].push(i as u32);
                }
            }
        }
    }
    for from in over {
        let mut ranges = std::mem::take(&mut on[from as usize]);
        // Followers before leaders, then what is quick to send.
        ranges.sort_by_key(|&i| {
            let i = i as usize;
            (pass.leaders[i] == from, pass.range(i).size_bytes, i)
        });
        // A source that cannot give anything to anyone is not asked about all that it has.
        let mut misses = 0;
        for i in ranges {
            let has = pass.nodes[from as usize].replicas;
            if has as f64 <= fair.mean || misses == MISSES_PER_NODE || misses_left == 0 {
                break;
            }
            if !move_away(pass, i as usize, from, fair, domain, misses == 0) {
                misses += 1;
                misses_left = misses_left.saturating_sub(1);
            }
        }
    }
}

fn move_away(
    pass: &mut Pass<'_>,
    i: usize,
    from: u32,
    fair: Fair,
    domain: Option<&Vec<u32>>,
    says_why: bool,
) -> bool {
    if !pass.is_free[i] || !pass.is_whole(i) || pass.is_sending_enough(i) || pass.is_aligning(i) {
        return false;
    }
    let source = &pass.nodes[from as usize];
    let (has, disk) = (source.replicas, source.disk());
    let helps = |stand: &Stand<'_>| {
        (has as f64 > fair.most || (stand.replicas as f64) < fair.least)
            && has >= stand.replicas + 2
            && stand.disk() <= disk + 0.1
            && domain.is_none_or(|labels| stand.labels == *labels)
    };
    let by_number = |stand: &Stand<'_>| stand.replicas as f64;
    match pass.destination(i, from, Spread::Kept, by_number, helps) {
        Ok(to) => {
            let (range, leaves, gets) = (pass.id(i), pass.name(from), pass.name(to));
            let reason = format!(
                "{leaves} has {has} replicas and {gets} {}, the mean is {:.1}",
                pass.nodes[to as usize].replicas, fair.mean
            );
            pass.order(i, Rule::Count, Action::Move { range, from: leaves, to: gets }, reason);
            true
        }
        Err(refused) => {
            // Once for each node that has too many is enough.
            if domain.is_none() && (says_why || pass.focus.is_some()) {
                pass.decline(i, Rule::Count, |pass| {
                    let (name, mean) = (pass.name(from), fair.mean);
                    format!(
                        "{name} has {has} replicas, the mean is {mean:.1}, but no node is better: \
                         {refused}"
                    )
                });
            }
            false
        }
    }
}

fn flags(pass: &Pass<'_>, nodes: &[u32]) -> Vec<bool> {
    let mut flags = vec![false; pass.nodes.len()];
    for &n in nodes.iter().filter(|&&n| n != NOWHERE) {
        flags[n as usize] = true;
    }
    flags
}
