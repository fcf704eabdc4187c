//! Where a replica may go: the filters that every rule goes by, and why none was left.

use crate::Intent;
use crate::pass::{NOWHERE, Pass};
use crate::stand::Stand;
use std::fmt;

/// How well a set of nodes is spread: pairs of replicas with different values, a byte per label,
/// the most significant label highest.
pub(crate) type Diversity = u64;

/// Why nodes were not taken, counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    nodes: usize,
    has_replica: usize,
    down: usize,
    leaving: usize,
    full: usize,
    busy: usize,
    zone: usize,
    uneven: usize,
    left: usize,
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "of {} nodes", self.nodes)?;
        let why = [
            (self.has_replica, "with a replica already"),
            (self.down, "down or not known yet"),
            (self.leaving, "draining, leaving or read-only"),
            (self.full, "with too full a disk"),
            (self.zone, "ruled out by labels (replicas would be spread worse)"),
            (self.uneven, "with too much to carry already"),
            (self.left, "that it left lately"),
            (self.busy, "receiving as many replicas as it may at once"),
        ];
        let mut between = ": ";
        for (count, why) in why.into_iter().filter(|&(count, _)| count > 0) {
            write!(f, "{between}{count} {why}")?;
            between = ", ";
        }
        Ok(())
    }
}

/// How far a rule may bend the spread over labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// The best that is left, even if it is worse than now: the replica has to go.
    Best,
    /// No worse than now.
    Kept,
    /// Strictly better than now.
    Better,
}

impl Pass<'_> {
    /// How well `members` are spread, without `minus` and with `plus`.
    pub fn diversity(&self, members: &[u32], minus: u32, plus: u32) -> Diversity {
        let labels = self.nodes.first().map_or(0, |stand| stand.labels.len()).min(8);
        if labels == 0 {
            return 0;
        }
        let kept = |n: &u32| *n != minus && *n != NOWHERE;
        let plus = (plus != NOWHERE).then_some(plus);
        let mut pairs = [0u8; 8];
        let set = || members.iter().copied().filter(kept).chain(plus);
        for (at, a) in set().enumerate() {
            for b in set().skip(at + 1) {
                let (a, b) = (&self.nodes[a as usize].labels, &self.nodes[b as usize].labels);
                for (pairs, (a, b)) in pairs.iter_mut().zip(a.iter().zip(b)) {
                    *pairs = pairs.saturating_add(u8::from(a != b));
                }
            }
        }
        u64::from_be_bytes(pairs)
    }

    /// The best node for a replica of range `i` that comes in place of the one on `from`
    /// ([`NOWHERE`]: one more). Among nodes of the best spread the one that `rank` puts lowest; ties
    /// by number. `allow` adds the conditions of the rule.
    pub fn destination(
        &self,
        i: usize,
        from: u32,
        spread: Spread,
        rank: impl Fn(&Stand<'_>) -> f64,
        allow: impl Fn(&Stand<'_>) -> bool,
    ) -> Result<u32, Refusals> {
        let (members, bytes) = (self.members(i), self.range(i).size_bytes);
        let before = self.diversity(members, NOWHERE, NOWHERE);
        let past = if spread == Spread::Best { None } else { self.past(i) };
        let mut refused = Refusals { nodes: self.nodes.len(), ..Refusals::default() };
        let mut best: Option<(Diversity, f64, u32)> = None;
        for (n, stand) in (0u32..).zip(&self.nodes) {
            let has_one = self.range(i).descriptor.replica_on(stand.id()).is_some();
            if has_one || members.contains(&n) {
                refused.has_replica += 1;
            } else if stand.view.liveness != crate::Liveness::Up {
                refused.down += 1;
            } else if !stand.may_receive || stand.view.intent != Intent::Active {
                refused.leaving += 1;
            } else if stand.is_full_for(bytes, self.settings) {
                refused.full += 1;
            } else if !allow(stand) {
                refused.uneven += 1;
            } else if past
                .is_some_and(|p| p.left_lately(stand.id(), self.view.now_ms, self.settings))
            {
                refused.left += 1;
            } else {
                let after = self.diversity(members, from, n);
                let is_worse = match spread {
                    Spread::Best => false,
                    Spread::Kept => after < before,
                    Spread::Better => after <= before,
                };
                let rank = rank(stand);
                let is_better = |&(best, least, _): &(Diversity, f64, u32)| {
                    after > best || (after == best && rank < least)
                };
                if is_worse {
                    refused.zone += 1;
                } else if self.is_receiving_enough(stand) {
                    // One of a better spread that is only busy is waited for.
                    refused.busy += 1;
                    if spread == Spread::Best && best.is_none_or(|(best, ..)| after > best) {
                        best = Some((after, f64::INFINITY, NOWHERE));
                    }
                } else if best.as_ref().is_none_or(is_better) {
                    best = Some((after, rank, n));
                }
            }
        }
        match best {
            Some((_, _, n)) if n != NOWHERE => Ok(n),
            _ => Err(refused),
        }
    }

    /// Whether `stand` has as many replicas on the way to it as it may have.
    pub fn is_receiving_enough(&self, stand: &Stand<'_>) -> bool {
        stand.incoming >= self.settings.moves_per_node
    }

    /// Whether the leader of range `i` sends as many replicas as it may.
    pub fn is_sending_enough(&self, i: usize) -> bool {
        let leader = self.node(self.leaders[i]);
        leader.is_none_or(|stand| stand.outgoing >= self.settings.moves_per_node)
    }
}
