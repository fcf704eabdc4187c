//! Room in a message.

/// Bytes, and parts, that are left. The first part always fits: one that is too large by itself is for the code
/// that makes it to bound.
#[derive(Debug)]
pub struct Room {
    left: usize,
    parts_left: usize,
    is_empty: bool,
    is_full: bool,
}

impl Room {
    /// For `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self::of_parts(usize::MAX, bytes)
    }

    /// For `parts` at most, of `bytes` together.
    pub fn of_parts(parts: usize, bytes: usize) -> Self {
        Self { left: bytes, parts_left: parts, is_empty: true, is_full: parts == 0 }
    }

    /// Takes `bytes` of it; whether they fit. Once something did not, nothing does, so that what comes
    /// later does not overtake it.
    pub fn take(&mut self, bytes: usize) -> bool {
        let fits = !self.is_full && (self.is_empty || bytes <= self.left);
        if fits {
            self.left = self.left.saturating_sub(bytes);
            self.parts_left -= 1;
            self.is_empty = false;
        }
        self.is_full = !fits || self.parts_left == 0;
        fits
    }

    /// Whether something did not fit, or nothing more will.
    pub fn is_full(&self) -> bool {
        self.is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_types::limits::{REPORTS_BYTES_MAX, REPORTS_MAX};

    #[test]
    fn parts_fit_until_one_does_not() {
        let mut room = Room::new(10);
        assert!(room.take(6) && room.take(4) && room.take(0));
        assert!(!room.take(1) && room.is_full());
        assert!(!room.take(0), "nothing overtakes");
        let mut room = Room::new(10);
        assert!(room.take(20) && !room.take(1), "the first always fits");
    }

    #[test]
    fn a_heartbeat_has_as_many_reports_as_it_may() {
        let mut room = Room::of_parts(REPORTS_MAX, REPORTS_BYTES_MAX);
        assert_eq!((0..=REPORTS_MAX).filter(|_| room.take(1)).count(), REPORTS_MAX);
        assert!(room.is_full());
        let mut room = Room::of_parts(REPORTS_MAX, REPORTS_BYTES_MAX);
        assert!(room.take(1) && room.take(REPORTS_BYTES_MAX - 1) && !room.is_full());
        assert!(!room.take(1) && room.is_full());
    }
}
