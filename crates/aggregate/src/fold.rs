//! Folding rows into a partial.

use crate::numbers::Needs;
use crate::row::Row;
use crate::{Partial, Query, Result};

/// The sketch of different values grows as rows come: how often that is looked at.
const MEASURE_EVERY: u64 = 1024;

/// Folds rows, one after the other.
pub struct Fold<'q> {
    query: &'q Query,
    needs: Needs,
    partial: Partial,
    /// The group of the row before: neighbours often share it.
    last: Option<usize>,
}

impl<'q> Fold<'q> {
    /// Nothing folded yet.
    pub fn new(query: &'q Query) -> Self {
        let needs = Needs::of(query);
        Self { query, needs, partial: Partial::new(), last: None }
    }

    /// Adds a row.
    #[inline]
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let query = self.query;
        let row = Row::new(query, key, value);
        if let Some(filter) = &query.filter
            && !filter.accepts(&row)
        {
            return Ok(());
        }
        let at = self.group(&row)?;
        let group = &mut self.partial.groups[at];
        group.rows += 1;
        if !self.needs.numbers && !self.needs.distinct {
            return Ok(());
        }
        let part = row.part();
        let number = part.and_then(|part| query.number(part));
        let mut grown = 0;
        if let Some(numbers) = &mut group.numbers {
            match number.as_ref().and_then(|number| numbers.add(number)) {
                Some(more) => grown = more,
                None => group.skipped += 1,
            }
        }
        if let (Some(distinct), Some(part)) = (&mut group.distinct, part) {
            let is_due = group.rows.is_multiple_of(MEASURE_EVERY);
            let before = if is_due { distinct.size_bytes() } else { 0 };
            distinct.add(number.as_ref(), &query.source, part, query.rules);
            if is_due {
                grown += distinct.size_bytes().saturating_sub(before);
            }
        }
        if grown > 0 {
            self.partial.grew(grown)?;
        }
        Ok(())
    }

    #[inline]
    fn group(&mut self, row: &Row<'_, '_>) -> Result<usize> {
        let name = match &self.query.group_by {
            // One group for all rows, which stands under the name of none.
            None => None,
            Some(by) => by.group(row.key, self.query.rules, || row.json(self.query.group_slot?)),
        };
        if let Some(last) = self.last
            && self.partial.groups[last].name.as_deref() == name.as_deref()
        {
            return Ok(last);
        }
        let at = self.partial.find(name.as_deref(), self.needs, self.query.groups_max)?;
        self.last = Some(at);
        Ok(at)
    }

    /// What the rows come to.
    pub fn finish(self) -> Partial {
        self.partial
    }
}
