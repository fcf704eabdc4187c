//! Words of a condition.

use crate::error::excerpt;
use crate::{AggregateError, Result};

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// `value`, `and`, `json:a.b`, `-12.5`, …
    Word(String),
    /// A quoted literal.
    Text(String),
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`
    Compare(&'static str),
    Open,
    Close,
}

/// Cuts a condition into words.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, len) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '\'' | '"' => quoted(rest, first)?,
            '=' | '!' | '<' | '>' => compare(rest)?,
            _ => word(rest),
        };
        tokens.push(token);
        rest = rest[len..].trim_start();
    }
    Ok(tokens)
}

fn compare(rest: &str) -> Result<(Token, usize)> {
    // The longer ones first.
    for (typed, operator) in [
        ("!=", "!="),
        ("<>", "!="),
        ("<=", "<="),
        (">=", ">="),
        ("==", "="),
        ("=", "="),
        ("<", "<"),
        (">", ">"),
    ] {
        if rest.starts_with(typed) {
            return Ok((Token::Compare(operator), typed.len()));
        }
    }
    let rest = excerpt(rest);
    Err(AggregateError::query(format!("{rest:?} begins with no comparison: use = != < <= > >=")))
}

fn quoted(rest: &str, quote: char) -> Result<(Token, usize)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((Token::Text(text), at + 1));
        }
        // A backslash takes the next character as it is.
        let c = if c == '\\' { chars.next().map(|(_, next)| next) } else { Some(c) };
        text.extend(c);
    }
    let rest = excerpt(rest);
    Err(AggregateError::query(format!("the text {rest} is not closed with {quote}")))
}

fn word(rest: &str) -> (Token, usize) {
    // A JSON path may hold names in brackets: quoted ones end with `"]`, as `JsonPath` reads them.
    let mut end = 0;
    while let Some(c) = rest[end..].chars().next() {
        let close = match &rest[end..] {
            part if part.starts_with("[\"") => part[2..].find("\"]").map(|at| at + 4),
            part if part.starts_with('[') => part.find(']').map(|at| at + 1),
            _ if c.is_whitespace() || "()=!<>'\"".contains(c) => break,
            _ => Some(c.len_utf8()),
        };
        end = close.map_or(rest.len(), |len| end + len);
    }
    (Token::Word(rest[..end].to_owned()), end)
}
