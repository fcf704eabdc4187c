//! Which spans of the key space live on this node, so that no two replicas ever share a key.

use isotherm_types::{Key, KeyRange, RangeId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use thiserror::Error;

/// The spans of all replicas on this node, and those reserved by snapshots and creations on
/// their way.
///
/// Invariant: no two spans overlap. A span is shown here only after what it stands for is durable
/// (a split is flushed first), and stays until the deletion of its data is durable: nobody else's rows
/// may come in between.
#[derive(Debug, Default)]
pub struct SpanTable {
    by_start: Mutex<BTreeMap<Key, (KeyRange, RangeId)>>,
}

/// The span overlaps that of another range on this node.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("span {span} of {range} overlaps {local_span} of {local} on this node")]
pub struct SpanOverlap {
    /// Who asked.
    pub range: RangeId,
    /// For what.
    pub span: KeyRange,
    /// Who has it.
    pub local: RangeId,
    /// All that it has.
    pub local_span: KeyRange,
}

type Spans = BTreeMap<Key, (KeyRange, RangeId)>;

/// Whether anybody but `range` and `over` has any of `span`.
fn overlap(
    spans: &Spans,
    span: &KeyRange,
    range: RangeId,
    over: &[RangeId],
) -> Result<(), SpanOverlap> {
    let before = spans.range(..=span.start().clone()).next_back();
    let inside = spans.range(span.start().clone()..).take_while(|(k, _)| span.is_before_end(k));
    for (_, (local_span, local)) in before.into_iter().chain(inside) {
        if *local != range && !over.contains(local) && local_span.overlaps(span) {
            let (local, local_span) = (*local, local_span.clone());
            return Err(SpanOverlap { range, span: span.clone(), local, local_span });
        }
    }
    Ok(())
}

impl SpanTable {
    /// Gives `span` to `range` in addition to what it has; refused if another range has any of it.
    pub fn reserve(&self, range: RangeId, span: &KeyRange) -> Result<(), SpanOverlap> {
        self.reserve_over(range, span, &[])
    }

    /// [`SpanTable::reserve`], whatever `over` have of it: they are part of `range` now.
    pub fn reserve_over(
        &self,
        range: RangeId,
        span: &KeyRange,
        over: &[RangeId],
    ) -> Result<(), SpanOverlap> {
        let mut spans = self.by_start.lock();
        overlap(&spans, span, range, over)?;
        let known = spans.get(span.start());
        // What it has stays its own until an install replaces it: its rows are still there.
        if known.is_none_or(|(known, _)| !known.covers(span)) {
            spans.insert(span.start().clone(), (span.clone(), range));
        }
        Ok(())
    }

    /// Makes `own` all that its range has, and takes everything from `gone`, which are part of it.
    pub fn take_over(
        &self,
        (range, span): (RangeId, KeyRange),
        gone: &[RangeId],
    ) -> Result<(), SpanOverlap> {
        let mut spans = self.by_start.lock();
        overlap(&spans, &span, range, gone)?;
        spans.retain(|_, (_, owner)| *owner != range && !gone.contains(owner));
        spans.insert(span.start().clone(), (span, range));
        Ok(())
    }

    /// Makes `spans` all that the ranges named have: a split, an install, a start.
    pub fn replace(&self, owners: &[(RangeId, KeyRange)]) -> Result<(), SpanOverlap> {
        let mut spans = self.by_start.lock();
        let mut next = spans.clone();
        next.retain(|_, (_, range)| !owners.iter().any(|(owner, _)| owner == range));
        for (range, span) in owners {
            overlap(&next, span, *range, &[])?;
            next.insert(span.start().clone(), (span.clone(), *range));
        }
        *spans = next;
        Ok(())
    }

    /// Makes `span` all that `range` has, unless it has nothing: then it was released meanwhile.
    pub fn restore(&self, range: RangeId, span: &KeyRange) {
        let mut spans = self.by_start.lock();
        let before = spans.len();
        spans.retain(|_, (_, owner)| *owner != range);
        if spans.len() < before {
            spans.insert(span.start().clone(), (span.clone(), range));
        }
    }

    /// Takes everything from `range`.
    pub fn release(&self, range: RangeId) {
        self.by_start.lock().retain(|_, (_, owner)| *owner != range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(a: &str, b: &str) -> KeyRange {
        KeyRange::new(a.to_owned(), b.to_owned()).expect("ordered")
    }

    #[test]
    fn an_overlapping_span_is_refused_and_a_split_hands_it_over() {
        let table = SpanTable::default();
        table.reserve(RangeId(1), &span("", "m")).expect("free");
        assert!(table.reserve(RangeId(2), &span("k", "z")).is_err());
        assert!(table.reserve(RangeId(2), &span("", "a")).is_err());
        table.reserve(RangeId(2), &span("m", "")).expect("free");
        let halves = [(RangeId(1), span("", "f")), (RangeId(3), span("f", "m"))];
        table.replace(&halves).expect("a split of range 1");
        assert!(table.reserve(RangeId(4), &span("g", "h")).is_err());
        table.reserve(RangeId(3), &span("f", "g")).expect("a smaller snapshot of the same range");
        assert!(table.reserve(RangeId(4), &span("k", "l")).is_err(), "its rows are still there");
        table.restore(RangeId(3), &span("f", "m"));
        assert!(table.reserve(RangeId(4), &span("k", "l")).is_err(), "it had it before");
        table.release(RangeId(3));
        table.restore(RangeId(3), &span("f", "m"));
        table.reserve(RangeId(4), &span("g", "h")).expect("free again");
    }

    #[test]
    fn a_merge_takes_its_neighbours_span_over() {
        let table = SpanTable::default();
        let halves = [(RangeId(1), span("", "m")), (RangeId(2), span("m", "t"))];
        table.replace(&halves).expect("free");
        table.reserve(RangeId(3), &span("t", "")).expect("free");
        assert!(table.reserve_over(RangeId(1), &span("", ""), &[RangeId(2)]).is_err());
        let whole = (RangeId(1), span("", "t"));
        table.reserve_over(RangeId(1), &whole.1, &[RangeId(2)]).expect("2 is to go");
        table.restore(RangeId(1), &span("", "m"));
        assert!(table.reserve(RangeId(4), &span("n", "o")).is_err(), "2 is still there");
        table.take_over(whole, &[RangeId(2)]).expect("2 goes");
        table.restore(RangeId(2), &span("m", "t"));
        let owner = table.reserve(RangeId(4), &span("n", "o")).expect_err("it is 1's");
        assert_eq!(owner.local, RangeId(1));
    }
}
