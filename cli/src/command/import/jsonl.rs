//! JSON lines: one object each, of which two fields are taken.
//!
//! A value that is not a string is taken as it is written: a number keeps all of its digits, an object
//! its order.

use super::file_lines::{FileLines, too_long};
use super::lines::{Columns, Line};
use crate::text::Encoding;
use bytes::Bytes;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::fmt;
use std::io::BufRead;

/// Calls `send` with every row, until it returns `false`: the receiver is gone.
pub fn read<R: BufRead>(
    mut file: FileLines<R>,
    columns: &Columns,
    mut send: impl FnMut(Line) -> bool,
) -> std::io::Result<()> {
    let key = columns.key.as_deref().unwrap_or("key");
    let value = columns.value.as_deref().unwrap_or("value");
    let fields = [key, value].map(|name| [name.to_owned(), format!("{name}_base64")]).concat();
    while let Some(line) = file.next()? {
        if line.text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = match line.is_cut {
            true => Err(too_long()),
            false => row(&line.text, &fields, columns.encoding),
        };
        let line = match row {
            Ok((key, value)) => columns.checked(line.number, &key, value),
            Err(why) => Line::Bad(line.number, why),
        };
        if !send(line) {
            return Ok(());
        }
    }
    Ok(())
}

/// Key and value of one object; `fields` names each of them and its form in base64.
fn row(text: &[u8], fields: &[String], encoding: Encoding) -> Result<(Bytes, Bytes), String> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let found = Fields { names: fields }.deserialize(&mut parser);
    let found = found.and_then(|found| parser.end().map(|()| found));
    let found = found.map_err(|error| format!("not a JSON object: {error}"))?;
    let bytes = |of: usize| -> Result<Bytes, String> {
        let at = |i: usize| found.get(i).copied().flatten();
        if let Some(raw) = at(of).filter(|raw| raw.get() != "null") {
            return match raw.get().starts_with('"') {
                true => encoding.parse(&string(raw)?).map_err(|f| f.message),
                false => Ok(Bytes::copy_from_slice(raw.get().as_bytes())),
            };
        }
        match at(of + 1) {
            Some(raw) if raw.get().starts_with('"') => {
                Encoding::Base64.parse(&string(raw)?).map_err(|f| f.message)
            }
            _ => Err(format!("there is no field {:?}", fields.get(of).map_or("", |name| name))),
        }
    };
    Ok((bytes(0)?, bytes(2)?))
}

fn string(raw: &RawValue) -> Result<String, String> {
    serde_json::from_str(raw.get()).map_err(|error| error.to_string())
}

/// Finds fields of an object by name, each as it is written.
struct Fields<'n> {
    names: &'n [String],
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = vec![None; self.names.len()];
        while let Some(name) = map.next_key::<Name>()? {
            if !self.names.contains(&name.0) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let raw = map.next_value::<&RawValue>()?;
            for (of, found) in self.names.iter().zip(&mut found) {
                if *of == name.0 && found.replace(raw).is_some() {
                    return Err(M::Error::custom(format!("the field {of:?} stands there twice")));
                }
            }
        }
        Ok(found)
    }
}

#[derive(Deserialize)]
struct Name(String);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::lines::tests::{lines_of, numbers_of};
    use crate::args::FileFormat::Jsonl;

    #[test]
    fn what_is_not_a_string_is_taken_as_it_is_written() {
        for value in [
            "12345678901234567890123",
            "1.10",
            "1e2",
            "-0",
            "0.10000000000000000001",
            "{\"b\": 1.10, \"a\": [12345678901234567890123]}",
            "[ 1 ,2]",
            "true",
        ] {
            let text = format!("{{\"key\": {value}, \"value\": {value}}}\r\n");
            let expected = format!("p/{0}={0}", value.as_bytes().escape_ascii());
            assert_eq!(numbers_of(Jsonl, &text), [Ok(expected)]);
        }
        let text = r#"{"key":"a\"\u00e4","value":"\n"}"#;
        assert_eq!(numbers_of(Jsonl, text), [Ok(r#"p/a\"\xc3\xa4=\n"#.into())]);
    }

    #[test]
    fn bad_lines_are_reported_by_their_number_in_the_file() {
        let text = "{\"key\":\"a\",\"value\":1}\n\n \r\n{\"key\":2\n{}\n[1]\n\
                    {\"key\":\"a\",\"key\":\"b\",\"value\":1}\n{\"key\":\"a\",\"value\":null}\n\
                    {\"key\":\"a\",\"value\":1} 2\n{\"value_base64\":\"/w==\",\"key\":\"z\"}\n";
        let found = numbers_of(Jsonl, text);
        let bad = [Err(4), Err(5), Err(6), Err(7), Err(8), Err(9)];
        assert_eq!(found[0], Ok("p/a=1".into()));
        assert_eq!(found[1..7], bad);
        assert_eq!(found[7], Ok("p/z=\\xff".into()));
    }

    #[test]
    fn fields_go_by_name() {
        let text = b"{\"a\":\"x\",\"b\":{\"a\":1}}\n";
        assert_eq!(lines_of(Jsonl, Some("a"), Some("b"), text)[0], Ok("p/x={\\\"a\\\":1}".into()));
        let missing = lines_of(Jsonl, Some("c"), Some("b"), text).remove(0).unwrap_err();
        assert!(missing.1.contains("no field \"c\""), "{missing:?}");
    }
}
