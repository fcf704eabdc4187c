//! Columns that are separated by commas (RFC 4180) or by tabs.
//!
//! A csv file has a header. A quote that does not close, and text behind one that closed, are reported
//! with the line where the row begins, and the line after it is the next: the `csv` crate takes both
//! without a word, and a single quote then swallows the rest of the file. In tsv a quote is a character
//! like any other, and there is no header.

use super::file_lines::{FileLine, FileLines, too_long};
use super::lines::{Columns, Line};
use std::io::{self, BufRead};

/// Most bytes of one row of a csv file: a quote that is not closed within them is not closed at all.
const ROW_BYTES_MAX: usize = 4 << 20;

/// Where a row has its key and its value.
struct Positions {
    key: usize,
    value: usize,
    /// So many columns every row has; `None`: enough is enough.
    columns: Option<usize>,
}

impl Positions {
    fn row(&self, columns: &Columns, number: u64, fields: &[&[u8]]) -> Line {
        let n = fields.len();
        let why = match (fields.get(self.key), fields.get(self.value), self.columns) {
            (Some(key), Some(value), expected) if expected.is_none_or(|expected| expected == n) => {
                return columns.row(number, key, value);
            }
            (_, _, Some(expected)) if n < expected => {
                format!("it has {n} of {expected} columns")
            }
            (Some(_), Some(_), Some(expected)) => format!(
                "it has {n} columns instead of {expected}: say which with --key N and --value N, \
                 or quote what holds a separator (csv)"
            ),
            _ => {
                format!("it has {n} columns, column {} is needed", self.key.max(self.value) + 1)
            }
        };
        Line::Bad(number, why)
    }
}

/// Sends every row of a tsv file.
pub fn read_tsv<R: BufRead>(
    mut file: FileLines<R>,
    columns: &Columns,
    mut send: impl FnMut(Line) -> bool,
) -> io::Result<()> {
    let positions = match by_number(columns) {
        Ok(positions) => positions,
        Err(why) => {
            send(Line::Bad(1, why));
            return Ok(());
        }
    };
    while let Some(line) = file.next()? {
        let text = line.without_return();
        let row = match (line.is_cut, text.is_empty()) {
            (true, _) => Line::Bad(line.number, too_long()),
            (false, true) => continue,
            (false, false) => {
                let fields: Vec<_> = text.split(|byte| *byte == b'\t').collect();
                positions.row(columns, line.number, &fields)
            }
        };
        if !send(row) {
            return Ok(());
        }
    }
    Ok(())
}

/// Sends every row of a csv file.
pub fn read_csv<R: BufRead>(
    mut file: FileLines<R>,
    columns: &Columns,
    mut send: impl FnMut(Line) -> bool,
) -> io::Result<()> {
    let mut positions: Option<Positions> = None;
    while let Some((number, row)) = csv_row(&mut file)? {
        let row = match (row, &positions) {
            (Ok(fields), Some(positions)) => {
                let fields: Vec<_> = fields.iter().map(Vec::as_slice).collect();
                positions.row(columns, number, &fields)
            }
            (Ok(header), None) => match by_header(columns, &header) {
                Ok(found) => {
                    positions = Some(found);
                    continue;
                }
                Err(why) => Line::Bad(number, why),
            },
            (Err(why), _) => Line::Bad(number, why),
        };
        if !send(row) || positions.is_none() {
            return Ok(());
        }
    }
    Ok(())
}

/// The fields of a row, or what is wrong with it.
type Fields = Result<Vec<Vec<u8>>, String>;

/// The next row that is not empty, and the number of the line where it begins.
fn csv_row<R: BufRead>(file: &mut FileLines<R>) -> io::Result<Option<(u64, Fields)>> {
    let first = loop {
        match file.next()? {
            None => return Ok(None),
            Some(line) if line.without_return().is_empty() && !line.is_cut => {}
            Some(line) => break line,
        }
    };
    let (number, mut bytes) = (first.number, first.text.len());
    let mut row = CsvRow::default();
    let mut lines = vec![first];
    loop {
        let Some(line) = lines.last() else { return Ok(None) };
        let why = match row.take(line) {
            Ok(true) => return Ok(Some((number, Ok(row.fields)))),
            Err(why) => why,
            Ok(false) => match file.next()? {
                Some(next) if bytes + next.text.len() <= ROW_BYTES_MAX => {
                    bytes += next.text.len() + 1;
                    lines.push(next);
                    continue;
                }
                next => {
                    lines.extend(next);
                    "a quote is opened that is not closed".to_owned()
                }
            },
        };
        // Whatever it was, it is over at the end of its first line.
        file.read_again(lines.split_off(1));
        return Ok(Some((number, Err(why))));
    }
}

/// A row that is being read.
#[derive(Default)]
struct CsvRow {
    fields: Vec<Vec<u8>>,
    /// The field in quotes that goes on in the next line.
    open: Option<Vec<u8>>,
}

impl CsvRow {
    /// Takes the next line; whether the row is complete.
    fn take(&mut self, line: &FileLine) -> Result<bool, String> {
        if line.is_cut {
            return Err(too_long());
        }
        let mut rest = &line.text[..];
        loop {
            let mut field = match self.open.take() {
                Some(open) => open,
                None => match rest.strip_prefix(b"\"") {
                    Some(quoted) => {
                        rest = quoted;
                        Vec::new()
                    }
                    None => {
                        let end = rest.iter().position(|byte| *byte == b',');
                        let Some((field, more)) = end.and_then(|end| rest.split_at_checked(end))
                        else {
                            self.fields.push(rest.strip_suffix(b"\r").unwrap_or(rest).to_vec());
                            return Ok(true);
                        };
                        self.fields.push(field.to_vec());
                        rest = more.get(1..).unwrap_or_default();
                        continue;
                    }
                },
            };
            loop {
                let end = rest.iter().position(|byte| *byte == b'"');
                let Some((text, more)) = end.and_then(|end| rest.split_at_checked(end)) else {
                    field.extend_from_slice(rest);
                    field.push(b'\n');
                    self.open = Some(field);
                    return Ok(false);
                };
                field.extend_from_slice(text);
                rest = more.get(1..).unwrap_or_default();
                match rest.strip_prefix(b"\"") {
                    Some(after) => {
                        field.push(b'"');
                        rest = after;
                    }
                    None => break,
                }
            }
            self.fields.push(field);
            match rest {
                b"" | b"\r" => return Ok(true),
                [b',', more @ ..] => rest = more,
                _ => return Err("text stands behind a quote that closes a field".to_owned()),
            }
        }
    }
}

/// A column by its number from 1.
fn number_of(asked: &str) -> Option<usize> {
    asked.parse::<usize>().ok()?.checked_sub(1)
}

/// Of a file without a header.
fn by_number(columns: &Columns) -> Result<Positions, String> {
    let position = |asked: &Option<String>| {
        let number = |asked: &String| {
            number_of(asked).ok_or_else(|| {
                format!("{asked:?} is not the number of a column, and a tsv file has no header")
            })
        };
        asked.as_ref().map(number).transpose()
    };
    match (position(&columns.key)?, position(&columns.value)?) {
        (None, None) => Ok(Positions { key: 0, value: 1, columns: Some(2) }),
        (Some(key), Some(value)) => Ok(Positions { key, value, columns: None }),
        (Some(key @ 0..2), None) => Ok(Positions { key, value: 1 - key, columns: Some(2) }),
        (None, Some(value @ 0..2)) => Ok(Positions { key: 1 - value, value, columns: Some(2) }),
        _ => Err("say both columns, with --key N and --value N".to_owned()),
    }
}

/// Of a file whose columns have these names.
fn by_header(columns: &Columns, header: &[Vec<u8>]) -> Result<Positions, String> {
    let names: Vec<_> = header.iter().map(|name| String::from_utf8_lossy(name)).collect();
    let all = || names.join(", ");
    let named = |asked: &str| {
        let mut found = names.iter().enumerate().filter(|(_, name)| **name == asked);
        match (found.next(), found.next()) {
            (Some((at, _)), None) => Ok(at),
            (Some(_), Some(_)) => Err(format!("two columns are called {asked:?}")),
            (None, _) => Err(format!("there is no column {asked:?}; there are {}", all())),
        }
    };
    let find = |asked: &Option<String>| match asked {
        None => Ok(None),
        Some(asked) => match number_of(asked) {
            Some(at) if at < names.len() => Ok(Some(at)),
            Some(_) => Err(format!("there is no column {asked}; there are {}", all())),
            None => named(asked).map(Some),
        },
    };
    let (key, value) = match (find(&columns.key)?, find(&columns.value)?) {
        (Some(key), Some(value)) => (key, value),
        (Some(key @ 0..2), None) if names.len() == 2 => (key, 1 - key),
        (None, Some(value @ 0..2)) if names.len() == 2 => (1 - value, value),
        (key, value) => {
            let by_name = |at: Option<usize>, name| {
                at.map_or_else(|| named(name), Ok).map_err(|_| {
                    format!(
                        "the first line names the columns of a csv file, and {} do not tell which is \
                         the key and which the value: say it with --key NAME and --value NAME",
                        all()
                    )
                })
            };
            (by_name(key, "key")?, by_name(value, "value")?)
        }
    };
    Ok(Positions { key, value, columns: Some(names.len()) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::lines::tests::{lines_of, numbers_of};
    use crate::args::FileFormat::{Csv, Tsv};

    fn ok(row: &str) -> Result<String, u64> {
        Ok(row.to_owned())
    }

    #[test]
    fn lines_are_counted_as_an_editor_counts_them() {
        let blank = numbers_of(Tsv, "a\t1\n\n\nbad\nc\t3\n");
        assert_eq!(blank, [ok("p/a=1"), Err(4), ok("p/c=3")]);
        let returns = numbers_of(Tsv, "a\t1\r\nb\t2\r\nbad\r\n\r\nworse");
        assert_eq!(returns, [ok("p/a=1"), ok("p/b=2"), Err(3), Err(5)]);
        let csv = numbers_of(Csv, "\r\nkey,value\r\n\r\na,\"1\r\n2\"\r\nbad\r\nb,3");
        assert_eq!(csv, [ok("p/a=1\\r\\n2"), Err(6), ok("p/b=3")]);
    }

    #[test]
    fn columns_that_nobody_asked_for_are_reported() {
        assert_eq!(numbers_of(Tsv, "a\tx\ty\nb\tz\n"), [Err(1), ok("p/b=z")]);
        assert_eq!(numbers_of(Csv, "key,value\na,x,y\nb,z\n"), [Err(2), ok("p/b=z")]);
        let chosen = lines_of(Tsv, Some("1"), Some("3"), b"a\tx\ty\n");
        assert_eq!(chosen[0], Ok("p/a=y".into()));
        assert_eq!(lines_of(Tsv, Some("2"), None, b"a\tx\n")[0], Ok("p/x=a".into()));
        assert!(lines_of(Tsv, Some("name"), None, b"a\tx\n")[0].is_err());
    }

    #[test]
    fn a_quote_that_is_no_quote_takes_its_line_and_no_other() {
        let text = "key,value\n1a,plain\n2a,\"two b\" is the string\n3a,\"open quote\n4a,found\n";
        let found = numbers_of(Csv, text);
        assert_eq!(found, [ok("p/1a=plain"), Err(3), Err(4), ok("p/4a=found")]);
        let long = format!("key,value\na,\"open\n{}b,2\n", "x,y\n".repeat(1 << 20));
        let found = numbers_of(Csv, &long);
        assert_eq!((found[0].clone(), found.last().unwrap().clone()), (Err(2), ok("p/b=2")));
        assert_eq!(found.len(), (1 << 20) + 2);
        let found = numbers_of(Csv, "key,value\n\"a\"\"b\",\"1,2\"\nc,5\" disk\n\"\",\n");
        assert_eq!(found, [ok("p/a\\\"b=1,2"), ok("p/c=5\\\" disk"), ok("p/=")]);
        assert_eq!(numbers_of(Tsv, "a\t\"x\n"), [ok("p/a=\\\"x")], "tsv has no quotes");
    }

    #[test]
    fn the_header_says_which_column_is_which() {
        assert_eq!(numbers_of(Csv, "value,key\n1,a\n"), [ok("p/a=1")]);
        assert_eq!(numbers_of(Csv, "value,other,key\n1,x,a\n"), [ok("p/a=1")]);
        let text = b"size,name\n10,vim\n20,git\n";
        assert_eq!(lines_of(Csv, Some("name"), None, text)[0], Ok("p/vim=10".into()));
        assert_eq!(lines_of(Csv, Some("1"), None, text)[1], Ok("p/20=git".into()));
        for (key, why) in [
            (None, "--key NAME"),
            (Some("nothing"), "there are size, name"),
            (Some("3"), "there are size, name"),
        ] {
            let found = lines_of(Csv, key, None, text);
            let (number, said) = found[0].clone().unwrap_err();
            assert!(found.len() == 1 && number == 1 && said.contains(why), "{found:?}");
        }
        let twice = lines_of(Csv, Some("a"), Some("b"), b"a,a,b\n1,2,3\n");
        assert!(twice[0].clone().unwrap_err().1.contains("two columns"));
    }
}
