//! Where the bytes are that are in memory only: RocksDB's estimate of the size of a span looks at files.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::mem;
use std::ops::Range;

/// One key is kept for so many bytes that were written; the estimate of a span is off by about that much
/// at each of its ends.
const STEP_BYTES: u64 = 4 << 10;
/// Keys that are kept at most: beyond that each stands for more bytes.
const KEYS_MAX: usize = 16 << 10;
/// Of a key no more is kept: spans whose bounds differ only behind that are not told apart.
const KEY_BYTES_MAX: usize = 64;

/// A sample of the keys that were written since the last flush, each with the bytes for which it stands.
#[derive(Debug, Default)]
pub(super) struct Unflushed(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    written: Sample,
    /// What a flush that is under way is writing out.
    flushing: Sample,
}

#[derive(Debug, Default)]
struct Sample {
    keys: BTreeMap<Vec<u8>, u64>,
    /// Bytes for which no key was kept yet.
    rest: u64,
}

impl Sample {
    fn note(&mut self, key: &[u8], bytes: u64) {
        self.rest += bytes;
        if self.rest < STEP_BYTES {
            return;
        }
        let kept = key[..key.len().min(KEY_BYTES_MAX)].to_vec();
        *self.keys.entry(kept).or_default() += mem::take(&mut self.rest);
        if self.keys.len() > KEYS_MAX {
            self.thin_out();
        }
    }

    /// Every second key stands for the one behind it too.
    fn thin_out(&mut self) {
        let mut all = mem::take(&mut self.keys).into_iter();
        while let Some((key, bytes)) = all.next() {
            let next = all.next().map_or(0, |(_, bytes)| bytes);
            self.keys.insert(key, bytes + next);
        }
    }

    fn within(&self, span: &Range<Vec<u8>>) -> u64 {
        if span.start >= span.end {
            return 0;
        }
        self.keys.range(span.start.clone()..span.end.clone()).map(|(_, bytes)| bytes).sum()
    }
}

impl Unflushed {
    /// Notes rows that were written: their keys, as they are stored, and their bytes.
    pub fn note<'a>(&self, rows: impl Iterator<Item = (&'a [u8], u64)>) {
        let mut state = self.0.lock();
        rows.for_each(|(key, bytes)| state.written.note(key, bytes));
    }

    /// Bytes of the rows of a span that may be in memory only, roughly.
    pub fn within(&self, span: &Range<Vec<u8>>) -> u64 {
        let state = self.0.lock();
        state.written.within(span) + state.flushing.within(span)
    }

    /// A flush begins: what was written before will be in files.
    pub fn begin_flush(&self) {
        let mut state = self.0.lock();
        let State { written, flushing } = &mut *state;
        for (key, bytes) in mem::take(written).keys {
            *flushing.keys.entry(key).or_default() += bytes;
        }
    }

    /// It is done: that is in files.
    pub fn end_flush(&self) {
        self.0.lock().flushing = Sample::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: &str, to: &str) -> Range<Vec<u8>> {
        from.as_bytes().to_vec()..to.as_bytes().to_vec()
    }

    #[test]
    fn what_was_written_counts_until_it_is_flushed() {
        let unflushed = Unflushed::default();
        let write = |letter: &str| {
            let keys: Vec<_> = (0..1000).map(|i| format!("{letter}{i:04}").into_bytes()).collect();
            unflushed.note(keys.iter().map(|key| (&key[..], 100)));
        };
        write("a");
        write("b");
        let is_near = |found: u64, wanted: u64| found.abs_diff(wanted) <= 2 * STEP_BYTES;
        assert!(is_near(unflushed.within(&span("a", "b")), 100_000));
        assert!(is_near(unflushed.within(&span("a", "c")), 200_000));
        assert!(is_near(unflushed.within(&span("b0500", "c")), 50_000));
        assert_eq!(unflushed.within(&span("c", "d")) + unflushed.within(&span("b", "a")), 0);
        unflushed.begin_flush();
        write("a");
        assert!(is_near(unflushed.within(&span("a", "b")), 200_000), "in no file yet");
        unflushed.end_flush();
        assert!(is_near(unflushed.within(&span("a", "c")), 100_000));
    }

    #[test]
    fn a_sample_is_bounded() {
        let unflushed = Unflushed::default();
        let count = 3 * KEYS_MAX as u64;
        for i in 0..count {
            let key = format!("{i:060}{i:040}").into_bytes();
            unflushed.note(std::iter::once((&key[..], STEP_BYTES)));
        }
        let state = unflushed.0.lock();
        let keys = &state.written.keys;
        assert!(keys.len() <= KEYS_MAX && keys.keys().all(|key| key.len() <= KEY_BYTES_MAX));
        assert_eq!(keys.values().sum::<u64>(), count * STEP_BYTES, "all of it is counted");
    }
}
