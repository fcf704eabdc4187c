//! Which rows a scan came by: a few of them, drawn while it goes on.

use isotherm_types::Key;

/// Rows that are kept of one part of a scan.
const KEPT_MAX: u64 = 16;

/// Some of the rows that were seen, each with the same probability (a reservoir; Li 1994, algorithm L:
/// from one row that is kept to the next takes one comparison per row).
#[derive(Debug, Clone, Default)]
pub struct ScannedRows {
    kept: Vec<Key>,
    seen: u64,
    /// The row, counted from 1, that is kept next, once there are as many as may be.
    next: u64,
    /// The largest of as many random numbers as are kept, as the algorithm draws them.
    largest: f64,
}

impl ScannedRows {
    /// A row was read.
    #[inline]
    pub fn see(&mut self, key: &[u8]) {
        self.seen += 1;
        if self.seen <= KEPT_MAX {
            self.kept.push(Key::copy_from_slice(key));
            if self.seen == KEPT_MAX {
                self.largest = 1.0;
                self.skip();
            }
        } else if self.seen == self.next {
            self.kept[fastrand::usize(..KEPT_MAX as usize)] = Key::copy_from_slice(key);
            self.skip();
        }
    }

    fn skip(&mut self) {
        // Never 0, whose logarithm is none.
        let random = || 1.0 - fastrand::f64();
        self.largest *= (random().ln() / KEPT_MAX as f64).exp();
        let skipped = random().ln() / (1.0 - self.largest).ln();
        self.next = self.seen.saturating_add(1).saturating_add(skipped as u64);
    }

    /// Those that were kept.
    pub fn kept(&self) -> &[Key] {
        &self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_a_scan_has_the_same_chance() {
        const ROWS: u32 = 1_000;
        let mut taken = vec![0_u32; 10];
        for _ in 0..2_000 {
            let mut rows = ScannedRows::default();
            (0..ROWS).for_each(|n| rows.see(&n.to_be_bytes()));
            assert_eq!(rows.kept().len(), KEPT_MAX as usize);
            for key in rows.kept() {
                let n = u32::from_be_bytes(key[..].try_into().expect("four bytes"));
                taken[(n * 10 / ROWS) as usize] += 1;
            }
        }
        // 3,200 each; the standard deviation is 54.
        assert!(taken.iter().all(|count| (2_900..3_500).contains(count)), "{taken:?}");
    }

    #[test]
    fn few_rows_are_all_kept() {
        let mut rows = ScannedRows::default();
        assert!(rows.kept().is_empty());
        [b"a", b"b"].into_iter().for_each(|key| rows.see(key));
        assert_eq!(rows.kept(), [Key::from_static(b"a"), Key::from_static(b"b")]);
    }
}
