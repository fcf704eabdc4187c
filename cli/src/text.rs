//! Keys and values as people type and read them.

use crate::failure::Failure;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use isotherm_types::Timestamp;
use serde_json::{Map, Value};

/// How bytes are written on the command line and in what it prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, as typed.
    Text,
    /// Hexadecimal digits.
    Hex,
    /// Base64 with padding.
    Base64,
}

impl Encoding {
    /// The bytes that `typed` stands for.
    pub fn parse(self, typed: &str) -> Result<Bytes, Failure> {
        let wrong =
            |what: &str, why: String| Failure::usage(format!("{typed:?} is not {what}: {why}"));
        match self {
            Self::Text => Ok(Bytes::copy_from_slice(typed.as_bytes())),
            Self::Hex => {
                hex::decode(typed).map(Bytes::from).map_err(|e| wrong("hexadecimal", e.to_string()))
            }
            Self::Base64 => {
                STANDARD.decode(typed).map(Bytes::from).map_err(|e| wrong("base64", e.to_string()))
            }
        }
    }

    /// As people read it in a table or a message. What no terminal should get, and what is not UTF-8, is
    /// written as `b"\xff"`; so is text that begins like that, so that no two values look alike.
    pub fn show(self, bytes: &[u8]) -> String {
        match self {
            Self::Text => match std::str::from_utf8(bytes) {
                Ok(text) if !text.contains(char::is_control) => self.plain(bytes, false),
                _ => escaped(bytes),
            },
            _ => self.exact(bytes),
        }
    }

    /// A value alone on stdout: whole lines as they are, for scripts too; on a terminal what would
    /// steer it is escaped as in [`Encoding::show`].
    pub fn plain(self, bytes: &[u8], is_terminal: bool) -> String {
        let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        match std::str::from_utf8(bytes) {
            _ if self != Self::Text => self.exact(bytes),
            Ok(text) if text.starts_with("b\"") || (is_terminal && text.contains(steers)) => {
                escaped(bytes)
            }
            Ok(text) => text.to_owned(),
            Err(_) => escaped(bytes),
        }
    }

    /// As it is parsed again. Text has to be UTF-8.
    pub fn exact(self, bytes: &[u8]) -> String {
        match self {
            Self::Text => String::from_utf8_lossy(bytes).into_owned(),
            Self::Hex => hex::encode(bytes),
            Self::Base64 => STANDARD.encode(bytes),
        }
    }

    /// Adds a field to a JSON object: `name`, or `name_base64` for text that is not UTF-8.
    pub fn field(self, object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
        if self == Self::Text && std::str::from_utf8(bytes).is_err() {
            object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into());
        } else {
            object.insert(name.to_owned(), self.exact(bytes).into());
        }
    }
}

fn escaped(bytes: &[u8]) -> String {
    format!("b\"{}\"", bytes.escape_ascii())
}

/// A time in the past as it was typed: a timestamp, a time before now (`-30s`), or an RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// What was typed.
    pub typed: String,
    /// What it stands for.
    pub when: When,
}

/// What a time in the past stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// A timestamp as the cluster issued it.
    Exactly(Timestamp),
    /// So many milliseconds before the cluster's now.
    Before(u64),
    /// So many milliseconds after 1970 began, of a time before it 0: no timestamp is as old.
    Time(u64),
}

impl std::str::FromStr for At {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        Ok(Self { typed: typed.to_owned(), when: typed.parse()? })
    }
}

impl std::str::FromStr for When {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        // A string as JSON has it.
        let quoted = typed.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let typed = quoted.unwrap_or(typed);
        if let Some(ago) = typed.strip_prefix('-') {
            let ago = humantime::parse_duration(ago).map_err(|e| format!("{typed:?}: {e}"))?;
            return Ok(Self::Before(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)));
        }
        if let Ok(ts) = typed.parse::<u64>() {
            return Ok(Self::Exactly(Timestamp(ts)));
        }
        let ms = rfc3339_ms(typed).ok_or_else(|| {
            format!(
                "{typed:?} is neither a timestamp, nor a time ago such as -30s, nor a time with its \
                 zone such as 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00"
            )
        })?;
        Ok(Self::Time(u64::try_from(ms).unwrap_or(0)))
    }
}

/// Milliseconds since 1970. A time without a zone is none: whose would it be?
fn rfc3339_ms(typed: &str) -> Option<i64> {
    let (time, offset_ms) = match typed.strip_suffix(['Z', 'z']) {
        Some(time) => (time, 0),
        None => {
            let (time, zone) = typed.split_at_checked(typed.len().checked_sub(6)?)?;
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
            let number = |digits: &str, most: i64| {
                let is_number = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
                digits.parse::<i64>().ok().filter(|n| is_number && *n <= most)
            };
            (time, sign * (number(hours, 23)? * 60 + number(minutes, 59)?) * 60_000)
        }
    };
    // The library knows no time before 1970: one that is otherwise well formed is as old as any.
    let year = time.split_once('-').map(|(year, _)| year).filter(|year| year.len() == 4)?;
    let is_before = year.parse::<u16>().ok()? < 1970;
    let known =
        if is_before { format!("1972{}", time.strip_prefix(year)?) } else { time.to_owned() };
    let utc = humantime::parse_rfc3339(&format!("{known}Z")).ok()?;
    let ms = utc.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
    if is_before { Some(-1) } else { Some(i64::try_from(ms).ok()? - offset_ms) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_survive_every_encoding() {
        for encoding in [Encoding::Hex, Encoding::Base64] {
            let bytes = [0, 255, 10, 200];
            assert_eq!(encoding.parse(&encoding.exact(&bytes)).unwrap(), bytes[..]);
        }
        assert!(Encoding::Hex.parse("xyz").is_err());
    }

    #[test]
    fn no_two_values_look_alike_and_none_steers_a_terminal() {
        let values: [&[u8]; 7] =
            [b"\xff", b"\\xff", b"b\"\\xff\"", b"\x1b[31m", b"\\x1b[31m", b"plain", b"two\nlines"];
        for shown in [
            values.map(|value| Encoding::Text.show(value)),
            values.map(|value| Encoding::Text.plain(value, true)),
            values.map(|value| Encoding::Text.plain(value, false)),
        ] {
            let mut different = shown.to_vec();
            different.sort();
            different.dedup();
            assert_eq!(different.len(), values.len(), "{shown:?}");
        }
        assert_eq!(Encoding::Text.show(b"\xff"), "b\"\\xff\"");
        assert_eq!(
            Encoding::Text.plain(b"\x1b[31m", false),
            "\x1b[31m",
            "scripts get what is there"
        );
        assert_eq!(Encoding::Text.plain(b"two\nlines", true), "two\nlines");
        assert!(!Encoding::Text.plain(b"\x1b[31m", true).contains('\x1b'));
        assert!(!Encoding::Text.show("\u{9b}31m".as_bytes()).contains('\u{9b}'));
    }

    #[test]
    fn text_that_is_not_utf8_gets_its_own_field() {
        let mut object = Map::new();
        Encoding::Text.field(&mut object, "key", &[0xff]);
        Encoding::Text.field(&mut object, "value", b"fine");
        assert_eq!(Value::from(object), serde_json::json!({"key_base64": "/w==", "value": "fine"}));
    }

    #[test]
    fn times_are_read_in_three_forms() {
        assert_eq!("-30s".parse(), Ok(When::Before(30_000)));
        assert_eq!("-600000000y".parse(), Ok(When::Before(u64::MAX)));
        assert_eq!("12345".parse(), Ok(When::Exactly(Timestamp(12345))));
        assert_eq!("\"12345\"".parse(), Ok(When::Exactly(Timestamp(12345))), "as JSON has it");
        assert_eq!("1970-01-01T00:00:02Z".parse(), Ok(When::Time(2000)));
        assert_eq!("1969-12-31T23:59:59Z".parse(), Ok(When::Time(0)));
        assert_eq!("1970-01-01T00:00:00+01:00".parse(), Ok(When::Time(0)));
        assert!(
            "yesterday".parse::<At>().is_err() && "1969-13-01T00:00:00Z".parse::<At>().is_err()
        );
    }

    #[test]
    fn times_have_a_zone() {
        let ms = |typed: &str| match typed.parse() {
            Ok(When::Time(ms)) => Some(ms),
            _ => None,
        };
        assert_eq!(ms("1970-01-02T00:00:00Z"), Some(86_400_000));
        assert_eq!(ms("1970-01-02T02:00:00+02:00"), Some(86_400_000));
        assert_eq!(ms("1970-01-01T22:30:00.5-01:30"), Some(86_400_500));
        for wrong in
            ["1970-01-02T00:00:00", "1970-01-02", "1970-01-02T00:00:00+2:00", "+02:00", "ä"]
        {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
    }
}
