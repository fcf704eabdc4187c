//! Numbers and durations as people type them, each with the bounds that its help names.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Longest time that anything is asked to wait or to run.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A number within bounds.
pub fn within<T>(bounds: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone,
{
    move |typed| {
        let number = typed.trim().parse::<T>().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| format!("not a number from {} to {}", bounds.start(), bounds.end()))
    }
}

/// A duration within bounds.
pub fn lasting(
    bounds: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |typed| {
        let example = "write for example 10s or 500ms";
        let parsed =
            humantime::parse_duration(typed).map_err(|error| format!("{error}; {example}"))?;
        if bounds.contains(&parsed) {
            return Ok(parsed);
        }
        let [least, most] =
            [bounds.start(), bounds.end()].map(|bound| humantime::format_duration(*bound));
        Err(format!("not from {least} to {most}; {example}"))
    }
}

/// `HOST:PORT`.
pub fn address(typed: &str) -> Result<String, String> {
    let port = typed.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(port) if port > 0 => Ok(typed.to_owned()),
        _ => Err("not HOST:PORT, such as 127.0.0.1:7400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bounds_are_named_and_kept() {
        let parse = within(1..=64_u64);
        assert_eq!((parse("1"), parse("64")), (Ok(1), Ok(64)));
        for wrong in ["0", "65", "-1", "", "1e3", "18446744073709551616"] {
            assert_eq!(parse(wrong), Err("not a number from 1 to 64".to_owned()), "{wrong}");
        }
        let rate = within(0.001..=1e7);
        assert!(rate("0.001").is_ok() && rate("nan").is_err() && rate("1e300").is_err());
        let parse = lasting(Duration::from_millis(1)..=DAY);
        assert!(parse("10s").is_ok() && parse("24h").is_ok());
        assert!(parse("0s").unwrap_err().contains("from 1ms to 1day"));
        assert!(parse("500000000000y").is_err() && parse("soon").is_err());
    }

    #[test]
    fn addresses_have_a_port() {
        assert!(address("meta.example:7400").is_ok() && address("[::1]:7400").is_ok());
        for wrong in ["foo", "foo:", ":7400", "foo:0", "foo:70000", ""] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
