//! Names of keys, spread over the whole key space so that every range has work.

/// First and last printable character of a prefix.
const FIRST: u8 = b'!';
const LAST: u8 = b'~';

/// Key number `n` of a workload: two printable characters that wander over the key space, then a
/// readable name.
pub(super) fn spread(name: &str, n: u64) -> String {
    let span = u64::from(LAST - FIRST + 1);
    // The golden ratio spreads consecutive numbers as evenly as can be.
    let place = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let at = (place * span * span) >> 32;
    let letter = |digit: u64| char::from(FIRST + u8::try_from(digit).unwrap_or(0));
    format!("{}{}-{name}-{n}", letter(at / span), letter(at % span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_are_different_and_spread_over_the_printable_prefixes() {
        let keys: BTreeSet<String> = (0..1000).map(|n| spread("set", n)).collect();
        assert_eq!(keys.len(), 1000);
        let firsts: BTreeSet<u8> = keys.iter().map(|key| key.as_bytes()[0]).collect();
        assert_eq!(firsts.len(), usize::from(LAST - FIRST + 1));
    }
}
