//! By which rules parts of an answer are computed.

/// Parts of one answer are computed by one set of rules: the client names the newest that it knows,
/// and a partial says by which it was computed. A process that names none knows the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Rules {
    /// Decimals are multiples of 10⁻¹⁸ in 128 bits, others are no numbers; `distinct` and groups take
    /// some values of different types for one; quantiles are near over a factor of 10³⁵.
    First,
    /// Every decimal that a double can be printed as is a number.
    #[default]
    Second,
}

impl Rules {
    /// The newest that both this process and one that names `newest` know; 0 is a process that names
    /// none.
    pub fn agreed(newest: u32) -> Self {
        if newest >= Self::Second.number() { Self::Second } else { Self::First }
    }

    /// As it travels; the first byte of a partial too.
    pub fn number(self) -> u32 {
        match self {
            Self::First => 1,
            Self::Second => 2,
        }
    }
}
