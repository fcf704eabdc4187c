//! A span in key order, page by page, all pages at one timestamp.
//!
//! Each page says exactly which part of the span it answers; the next one begins there. After a
//! split or a change of leaders only what is left is asked again, at the same timestamp. A scan at a
//! given timestamp, and one that takes long, holds the history that it needs (`hold.rs`).

use super::hold::{Keeper, check_at};
use super::read::{retry_read, retry_routing, unexpected_answer};
use super::types::{Row, ScanOptions, ScanPage};
use crate::ClientError;
use crate::client::Client;
use isotherm_proto::internal::{PageResult, ReadPage, range_request, range_response};
use isotherm_types::{Key, KeyRange, Timestamp};

/// Rows asked for at a time.
const PAGE_KEYS: u64 = 10_000;
/// A scan on its way.
pub struct Scan {
    client: Client,
    options: ScanOptions,
    /// What is still to be answered; `None`: nothing.
    left: Option<KeyRange>,
    returned: u64,
    keeper: Keeper,
}

impl Client {
    /// Starts a scan; nothing is asked before the first page is.
    pub fn scan(&self, options: ScanOptions) -> Scan {
        let left = Some(options.span.clone());
        let keeper = Keeper::new(self.clone(), options.at.is_some());
        Scan { client: self.clone(), options, left, returned: 0, keeper }
    }
}

impl Scan {
    /// The timestamp of the scan, once it is known.
    pub fn at(&self) -> Option<Timestamp> {
        self.options.at
    }

    /// What is still to be answered; `None` if nothing is.
    pub fn left(&self) -> Option<&KeyRange> {
        let room = self.options.limit.is_none_or(|limit| self.returned < limit);
        self.left.as_ref().filter(|_| room)
    }

    /// The next page; `None` after the last. A page can be empty.
    pub async fn next_page(&mut self) -> Result<Option<ScanPage>, ClientError> {
        let room = self.options.limit.map(|limit| limit.saturating_sub(self.returned));
        let Some(span) = self.left.clone().filter(|_| room != Some(0)) else {
            self.keeper.release().await;
            return Ok(None);
        };
        check_at(self.options.at)?;
        if let Some(at) = self.options.at {
            self.keeper.keep(at).await?;
        }
        let page = self.fetch(&span, room.unwrap_or(PAGE_KEYS).min(PAGE_KEYS)).await?;
        let covered: KeyRange = page
            .covered
            .ok_or_else(unexpected_answer)?
            .try_into()
            .map_err(|_| unexpected_answer())?;
        let left = rest(&span, &covered, self.options.reverse)?;
        let at = Timestamp(page.at);
        if self.options.at.is_some_and(|asked| asked != at) {
            return Err(unexpected_answer());
        }
        if page.rows.iter().any(|row| !covered.contains(&row.key)) {
            return Err(unexpected_answer());
        }
        self.left = left;
        self.options.at = Some(at);
        self.client.inner.saw(at);
        let mut rows: Vec<(Key, Row)> = page
            .rows
            .into_iter()
            .map(|row| (row.key, Row { value: row.value, ts: Timestamp(row.ts) }))
            .collect();
        if let Some(room) = room {
            rows.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        }
        self.returned += rows.len() as u64;
        Ok(Some(ScanPage { at, rows }))
    }

    async fn fetch(&self, span: &KeyRange, max_keys: u64) -> Result<PageResult, ClientError> {
        let inner = &self.client.inner;
        let mut attempts = inner.attempts();
        loop {
            let route = if self.options.reverse {
                attempts.within(inner.router.locate_before(span.end())).await
            } else {
                // The empty key stands for the first one.
                inner.locate(&attempts, span.start()).await
            };
            let (error, next) = match route {
                Ok(route) => {
                    let read = ReadPage {
                        span: Some(span.into()),
                        at: self.options.at.map_or(0, Timestamp::get),
                        max_keys: max_keys as u32,
                        max_bytes: self.options.page_bytes_max,
                        reverse: self.options.reverse,
                        keys_only: self.options.keys_only,
                        ..ReadPage::default()
                    };
                    let body = range_request::Body::Scan(read);
                    match inner.attempt(&route, attempts.left(), body).await {
                        Ok(range_response::Body::Scan(page)) => return Ok(page),
                        Ok(_) => return Err(unexpected_answer()),
                        Err(failed) => retry_read(failed)?,
                    }
                }
                Err(error) => retry_routing(error)?,
            };
            if !attempts.again(next).await {
                return Err(error);
            }
        }
    }

    /// All rows that are left, at once.
    pub async fn collect(mut self) -> Result<Vec<(Key, Row)>, ClientError> {
        let mut rows = Vec::new();
        while let Some(page) = self.next_page().await? {
            rows.extend(page.rows);
        }
        Ok(rows)
    }
}

/// What is left of `span` after `covered`, which must begin where `span` does (or end there, if it
/// goes downwards).
fn rest(
    span: &KeyRange,
    covered: &KeyRange,
    reverse: bool,
) -> Result<Option<KeyRange>, ClientError> {
    let fits = if reverse { covered.end() == span.end() } else { covered.start() == span.start() };
    if !fits || !span.covers(covered) {
        return Err(unexpected_answer());
    }
    let (start, end) = if reverse {
        (span.start().clone(), covered.start().clone())
    } else {
        (covered.end().clone(), span.end().clone())
    };
    let is_done = if reverse { end <= start } else { start.is_empty() || start == end };
    if is_done {
        return Ok(None);
    }
    KeyRange::new(start, end).map(Some).map_err(|_| unexpected_answer())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(a: &str, b: &str) -> KeyRange {
        KeyRange::new(a.to_owned(), b.to_owned()).expect("ordered")
    }

    #[test]
    fn pages_tile_the_span_in_both_directions() {
        let next = |s, c, reverse| rest(&s, &c, reverse).expect("fits");
        assert_eq!(next(span("b", "y"), span("b", "m"), false), Some(span("m", "y")));
        assert_eq!(next(span("b", "y"), span("b", "y"), false), None);
        assert_eq!(next(span("b", ""), span("b", ""), false), None);
        assert_eq!(next(span("b", "y"), span("m", "y"), true), Some(span("b", "m")));
        assert_eq!(next(span("", ""), span("", ""), true), None);
        assert!(rest(&span("b", "y"), &span("c", "m"), false).is_err(), "a hole");
        assert!(rest(&span("b", "y"), &span("b", "z"), false).is_err(), "more than was asked");
    }
}
