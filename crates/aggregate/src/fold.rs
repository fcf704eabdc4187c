//! Folding rows into a partial.

use crate::numbers::Needs;
use crate::row::Row;
use crate::value::Number;
use crate::{Partial, Query, Result};
use std::borrow::Cow;

/// Sketches grow as rows come: how often that is looked at.
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
        let needs = Needs::of(&query.functions, query.source.is_float());
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
        let number = part.and_then(|part| query.source.number(part));
        let mut before = None;
        if (self.needs.distinct || self.needs.quantiles) && group.rows.is_multiple_of(MEASURE_EVERY)
        {
            before = Some(group.size_bytes());
        }
        if let Some(numbers) = &mut group.numbers {
            match number {
                Some(number) => numbers.add(number),
                None => {
                    group.skipped += 1;
                }
            }
        }
        if let (Some(distinct), Some(part)) = (&mut group.distinct, part) {
            // Numbers by what they are, everything else by how it is written.
            match number {
                Some(Number::Decimal(decimal)) => distinct.add(&decimal.0.to_le_bytes()),
                Some(Number::Float(float)) => distinct.add(&(float + 0.0).to_le_bytes()),
                None => distinct.add(&tagged(&query.source.text(part))),
            }
        }
        if let Some(before) = before {
            let grown = group.size_bytes().saturating_sub(before);
            self.partial.grew(grown)?;
        }
        Ok(())
    }

    #[inline]
    fn group(&mut self, row: &Row<'_, '_>) -> Result<usize> {
        let name = match &self.query.group_by {
            // One group for all rows, which stands under the name of none.
            None => None,
            Some(by) => by.group(row.key, || row.json(self.query.group_slot?)),
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

/// Text in a form that no number has.
fn tagged(text: &[u8]) -> Cow<'_, [u8]> {
    // Numbers are 8 or 16 bytes: text of that length gets one more.
    if matches!(text.len(), 8 | 16) {
        Cow::Owned([text, &[0]].concat())
    } else {
        Cow::Borrowed(text)
    }
}
