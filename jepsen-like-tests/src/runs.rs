//! Sets of numbers that are nearly dense, as the runs of which they consist.

use serde::{Deserialize, Serialize};

/// A set of numbers. As JSON it is the list of its runs, `[[first,last],…]`.
///
/// Invariant: runs are in order, and between two of them a number is missing. Only a history from
/// elsewhere can break it: see [`Runs::is_well_formed`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Runs(Vec<(u64, u64)>);

impl Runs {
    /// Whether what was read from a history is a set.
    pub(crate) fn is_well_formed(&self) -> bool {
        let apart = |pair: &[(u64, u64)]| pair[0].1 < pair[1].0 && pair[1].0 - pair[0].1 > 1;
        self.0.iter().all(|(first, last)| first <= last) && self.0.windows(2).all(apart)
    }

    /// How many numbers it has.
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= number);
        after > 0 && self.0[after - 1].1 >= number
    }

    /// A number that is in here and not in `other`, if there is one.
    pub(crate) fn first_not_in(&self, other: &Self) -> Option<u64> {
        self.0.iter().find_map(|&(first, last)| {
            // Only one run of the other can hold all of this one.
            let after = other.0.partition_point(|(start, _)| *start <= first);
            match after.checked_sub(1).map(|at| other.0[at].1) {
                Some(end) if end >= last => None,
                Some(end) if end >= first => Some(end + 1),
                _ => Some(first),
            }
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }
}

impl FromIterator<u64> for Runs {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        let mut numbers: Vec<u64> = numbers.into_iter().collect();
        numbers.sort_unstable();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for number in numbers {
            match runs.last_mut() {
                Some((_, last)) if number <= last.saturating_add(1) => *last = number,
                _ => runs.push((number, number)),
            }
        }
        Self(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn runs_agree_with_plain_sets() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..500 {
            let mut draw = || -> BTreeSet<u64> { (0..20).map(|_| rng.u64(0..24)).collect() };
            let (a, b) = (draw(), draw());
            // Doubled numbers fall together.
            let runs: Runs = a.iter().chain(a.iter()).copied().collect();
            let others: Runs = b.iter().copied().collect();
            assert!(runs.is_well_formed());
            assert_eq!(runs.iter().collect::<BTreeSet<_>>(), a);
            assert_eq!(runs.len(), a.len() as u64);
            assert!((0..30).all(|n| runs.contains(n) == a.contains(&n)));
            assert_eq!(runs.first_not_in(&others), a.difference(&b).next().copied());
        }
    }

    #[test]
    fn lists_that_are_no_sets_are_told_apart() {
        for runs in [vec![(2, 1)], vec![(0, 3), (3, 5)], vec![(0, 3), (4, 5)], vec![(7, 8), (1, 2)]]
        {
            assert!(!Runs(runs.clone()).is_well_formed(), "{runs:?}");
        }
        assert!(Runs(vec![(0, 3), (5, 5)]).is_well_formed());
    }
}
