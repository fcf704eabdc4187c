//! Room in a message.

/// Bytes that are left. The first part always fits: one that is too large by itself is for whoever makes
/// it to bound.
#[derive(Debug)]
pub struct Room {
    left: usize,
    is_empty: bool,
    is_full: bool,
}

impl Room {
    /// For `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { left: bytes, is_empty: true, is_full: false }
    }

    /// Takes `bytes` of it; whether they fit. Once something did not, nothing does, so that what comes
    /// later does not overtake it.
    pub fn take(&mut self, bytes: usize) -> bool {
        self.is_full |= bytes > self.left && !self.is_empty;
        if !self.is_full {
            self.left = self.left.saturating_sub(bytes);
            self.is_empty = false;
        }
        !self.is_full
    }

    /// Whether something did not fit.
    pub fn is_full(&self) -> bool {
        self.is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_until_one_does_not() {
        let mut room = Room::new(10);
        assert!(room.take(6) && room.take(4) && room.take(0));
        assert!(!room.take(1) && room.is_full());
        assert!(!room.take(0), "nothing overtakes");
        let mut room = Room::new(10);
        assert!(room.take(20) && !room.take(1), "the first always fits");
    }
}
