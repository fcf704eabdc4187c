//! Roughly how many bytes a log holds behind which index, for retention.

use std::collections::VecDeque;

/// Entries are gathered into segments of about this size.
const SEGMENT_BYTES: u64 = 64 << 10;

#[derive(Debug)]
struct Segment {
    first: u64,
    last: u64,
    bytes: u64,
}

/// Sizes of a log, in segments.
///
/// Sizes of what was on disk at the start are not known: it counts as one small segment,
/// which leaves as a whole once what came after it is enough.
#[derive(Debug, Default)]
pub struct LogSizes {
    segments: VecDeque<Segment>,
}

impl LogSizes {
    /// A log that was found with the entries `first ..= last`.
    pub fn recovered(first: u64, last: u64) -> Self {
        Self { segments: VecDeque::from([Segment { first, last, bytes: SEGMENT_BYTES }]) }
    }

    /// Notes the entry `index`.
    pub fn push(&mut self, index: u64, bytes: usize) {
        let bytes = bytes as u64;
        match self.segments.back_mut() {
            Some(last) if last.bytes < SEGMENT_BYTES => {
                last.last = index;
                last.bytes += bytes;
            }
            _ => self.segments.push_back(Segment { first: index, last: index, bytes }),
        }
    }

    /// Forgets every entry from `index` on.
    pub fn truncate_from(&mut self, index: u64) {
        while self.segments.back().is_some_and(|s| s.first >= index) {
            self.segments.pop_back();
        }
        if let Some(last) = self.segments.back_mut() {
            last.last = last.last.min(index.saturating_sub(1));
        }
    }

    /// Forgets every entry below `index`.
    pub fn purge_below(&mut self, index: u64) {
        while self.segments.front().is_some_and(|s| s.last < index) {
            self.segments.pop_front();
        }
        if let Some(first) = self.segments.front_mut() {
            first.first = first.first.max(index);
        }
    }

    /// The last index such that at least `keep_bytes` come after it.
    pub fn index_before(&self, keep_bytes: u64) -> Option<u64> {
        let mut after = 0;
        for segment in self.segments.iter().rev() {
            if after >= keep_bytes {
                return Some(segment.last);
            }
            after += segment.bytes;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_at_least_what_was_asked_for() {
        let mut sizes = LogSizes::recovered(1, 100);
        for index in 101..=110 {
            sizes.push(index, SEGMENT_BYTES as usize);
        }
        assert_eq!(sizes.index_before(0), Some(110));
        assert_eq!(sizes.index_before(3 * SEGMENT_BYTES), Some(107));
        assert_eq!(sizes.index_before(10 * SEGMENT_BYTES), Some(100));
        assert_eq!(sizes.index_before(11 * SEGMENT_BYTES), None);
        sizes.purge_below(108);
        sizes.truncate_from(110);
        assert_eq!(sizes.index_before(0), Some(109));
        assert_eq!(sizes.index_before(2 * SEGMENT_BYTES), None);
    }
}
