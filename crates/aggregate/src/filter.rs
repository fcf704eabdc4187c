//! Conditions on rows.
//!
//! ```text
//! condition  = and { "or" and }
//! and        = not { "and" not }
//! not        = "not" not | "(" condition ")" | operand comparison operand
//! operand    = "value" | "key" | "json:" path | number | 'text' | "text" | true | false | null
//! ```
//! A comparison of things that are missing or of different types is false.

use crate::error::excerpt;
use crate::json_paths::JsonPaths;
use crate::lexer::{Token, tokens};
use crate::number::Number;
use crate::row::Row;
use crate::scalar::Scalar;
use crate::{AggregateError, JsonPath, Result};
use std::cmp::Ordering;

/// Conditions inside conditions at most: evaluation recurses.
const DEPTH_MAX: usize = 64;
/// Bytes of a condition at most.
const TEXT_MAX: usize = 16 << 10;
/// Comparisons of a condition at most: each may look at all of a value.
const COMPARISONS_MAX: usize = 512;

/// A condition on a row.
#[derive(Debug, Clone)]
pub struct Filter(Node);

#[derive(Debug, Clone)]
enum Node {
    Or(Vec<Node>),
    And(Vec<Node>),
    Not(Box<Node>),
    Compare(Operand, &'static str, Operand),
}

#[derive(Debug, Clone)]
enum Operand {
    Value,
    Key,
    /// The slot of a path.
    Json(usize),
    Literal(Scalar<'static>),
}

impl Filter {
    /// Reads a condition; the JSON paths that it looks at are added to `paths`.
    pub(crate) fn parse(text: &str, paths: &mut JsonPaths) -> Result<Self> {
        if text.len() > TEXT_MAX {
            return Err(bad(format!("the condition has more than {TEXT_MAX} bytes")));
        }
        let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0, comparisons: 0, paths };
        let node = parser.or()?;
        match parser.next() {
            None => Ok(Self(node)),
            Some(token) => {
                Err(bad(format!("{} stands where the condition should end", shown(&token))))
            }
        }
    }

    /// Whether a row satisfies it.
    pub(crate) fn accepts(&self, row: &Row<'_, '_>) -> bool {
        self.0.holds(row)
    }
}

impl Node {
    fn holds(&self, row: &Row<'_, '_>) -> bool {
        match self {
            Self::Or(any) => any.iter().any(|node| node.holds(row)),
            Self::And(all) => all.iter().all(|node| node.holds(row)),
            Self::Not(node) => !node.holds(row),
            Self::Compare(left, operator, right) => {
                let (Some(left), Some(right)) = (left.scalar(row), right.scalar(row)) else {
                    return false;
                };
                left.compare(right).is_some_and(|order| match *operator {
                    "=" => order == Ordering::Equal,
                    "!=" => order != Ordering::Equal,
                    "<" => order == Ordering::Less,
                    "<=" => order != Ordering::Greater,
                    ">" => order == Ordering::Greater,
                    _ => order != Ordering::Less,
                })
            }
        }
    }
}

impl Operand {
    fn scalar<'a>(&'a self, row: &'a Row<'_, '_>) -> Option<&'a Scalar<'a>> {
        match self {
            Self::Key => Some(row.key_scalar()),
            Self::Value => row.value_scalar(),
            Self::Json(slot) => row.json_scalar(*slot),
            Self::Literal(literal) => Some(literal),
        }
    }
}

fn bad(why: impl std::fmt::Display) -> AggregateError {
    AggregateError::query(format!(
        "{why}; a condition looks like: value >= 10 and not (json:country = 'CH' or key < 'm')"
    ))
}

fn shown(token: &Token) -> String {
    match token {
        Token::Word(word) => format!("{:?}", excerpt(word)),
        Token::Text(text) => format!("the text {:?}", excerpt(text)),
        Token::Compare(operator) => format!("{operator:?}"),
        Token::Open => "\"(\"".to_owned(),
        Token::Close => "\")\"".to_owned(),
    }
}

struct Parser<'p> {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    comparisons: usize,
    paths: &'p mut JsonPaths,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is_it = matches!(self.tokens.get(self.at), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word));
        self.at += usize::from(is_it);
        is_it
    }

    fn or(&mut self) -> Result<Node> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(bad(format!("the condition is nested deeper than {DEPTH_MAX}")));
        }
        let mut any = vec![self.and()?];
        while self.take_word("or") {
            any.push(self.and()?);
        }
        self.depth -= 1;
        Ok(if any.len() == 1 { any.remove(0) } else { Node::Or(any) })
    }

    fn and(&mut self) -> Result<Node> {
        let mut all = vec![self.not()?];
        while self.take_word("and") {
            all.push(self.not()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Node::And(all) })
    }

    fn not(&mut self) -> Result<Node> {
        let mut negations = 0;
        while self.take_word("not") {
            negations += 1;
        }
        let mut node = if matches!(self.tokens.get(self.at), Some(Token::Open)) {
            self.at += 1;
            let inner = self.or()?;
            match self.next() {
                Some(Token::Close) => inner,
                _ => return Err(bad("a ( is not closed")),
            }
        } else {
            let left = self.operand()?;
            let operator = match self.next() {
                Some(Token::Compare(operator)) => operator,
                Some(token) => {
                    return Err(bad(format!("{} stands where a comparison should", shown(&token))));
                }
                None => return Err(bad("the condition ends where a comparison should stand")),
            };
            self.comparisons += 1;
            if self.comparisons > COMPARISONS_MAX {
                let max = COMPARISONS_MAX;
                return Err(bad(format!("the condition has more than {max} comparisons")));
            }
            Node::Compare(left, operator, self.operand()?)
        };
        if negations % 2 == 1 {
            node = Node::Not(Box::new(node));
        }
        Ok(node)
    }

    fn operand(&mut self) -> Result<Operand> {
        let word = match self.next() {
            Some(Token::Text(text)) => {
                return Ok(Operand::Literal(Scalar::Text(text.into_bytes().into())));
            }
            Some(Token::Word(word)) => word,
            Some(token) => {
                return Err(bad(format!(
                    "{} stands where value, key, json:PATH or a literal should",
                    shown(&token)
                )));
            }
            None => {
                return Err(bad(
                    "the condition ends where value, key, json:PATH or a literal should stand",
                ));
            }
        };
        if let Some(path) = word.strip_prefix("json:") {
            return Ok(Operand::Json(self.paths.add(&JsonPath::parse(path)?)));
        }
        Ok(match word.as_str() {
            "value" => Operand::Value,
            "key" => Operand::Key,
            "true" => Operand::Literal(Scalar::Bool(true)),
            "false" => Operand::Literal(Scalar::Bool(false)),
            "null" => Operand::Literal(Scalar::Null),
            _ => match Number::literal(&word) {
                Some(number) => Operand::Literal(Scalar::of_number(number)),
                None => {
                    return Err(bad(format!(
                        "{:?} is no value, key, json:PATH or literal (text stands in quotes)",
                        excerpt(&word)
                    )));
                }
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{Query, QueryText};

    fn parse(text: &str) -> Result<Filter> {
        Filter::parse(text, &mut JsonPaths::default())
    }

    fn holds(condition: &str, key: &str, value: &str, source: &str) -> bool {
        let query = Query::parse(&QueryText {
            functions: "count".to_owned(),
            value: source.to_owned(),
            filter: condition.to_owned(),
            ..QueryText::default()
        });
        let query = query.unwrap();
        let row = Row::new(&query, key.as_bytes(), value.as_bytes());
        query.filter.as_ref().unwrap().accepts(&row)
    }

    #[test]
    fn numbers_compare_exactly() {
        assert!(holds("value = 1.50", "k", "1.5", "text"));
        assert!(
            holds("value > 9007199254740992", "k", "9007199254740993", "text"),
            "not as doubles"
        );
        assert!(holds("value>=-3 and value<=-3", "k", "-3", "i64"));
        assert!(holds("value < inf", "k", "1e300", "f64"));
        assert!(holds("10 > value", "k", "9", "text"));
        let id = "json:id = 200000000000000000001";
        assert!(holds(id, "k", r#"{"id":200000000000000000001}"#, "text"));
        assert!(!holds(id, "k", r#"{"id":200000000000000000002}"#, "text"));
        assert!(holds(
            "value > 1e301 and value < 1.1e301",
            "k",
            "1000000000000000000001e280",
            "text"
        ));
        assert!(
            holds("value < 1e999", "k", "1e998", "text")
                && !holds("value < 1e999", "k", "1e1000", "text")
        );
        assert!(holds(
            "value = 0.1 and json:x = 0.1000000000000000000000001 or value=0.1",
            "k",
            "0.1",
            "f64"
        ));
        // What cannot be added up is compared all the same: the row counts, as skipped.
        for (value, source) in
            [("1e999", "f64"), ("99999999999999999999", "i64"), ("1e400", "text")]
        {
            assert!(holds("value > 5", "k", value, source), "{value} as {source}");
        }
        assert!(!holds("value > 10", "k", "9", "text"), "not as text");
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_false() {
        for condition in [
            "json:b = 1",
            "json:b != 1",
            "json:a = '1'",
            "json:a = true",
            "value = null",
            "json:c > 0",
        ] {
            assert!(!holds(condition, "k", r#"{"a":1,"c":[1]}"#, "text"), "{condition}");
        }
        assert!(holds("not json:b = 1", "k", "{}", "text"));
        assert!(!holds("value > 1", "k", "abc", "text"));
        assert!(holds("value = 'abc'", "k", "abc", "text"));
    }

    #[test]
    fn conditions_combine() {
        let row = r#"{"country":"CH","n":5,"ok":true,"no":null}"#;
        let h = |condition: &str| holds(condition, "user/42", row, "json:n");
        assert!(h("value = 5 and json:country = 'CH' and json:ok = true and json:no = null"));
        assert!(h("key >= \"user/\" and key < 'user0'"));
        assert!(h("value = 1 or value = 2 or not (value = 3 or value = 4)"));
        assert!(h("value = 1 and value = 2 or value = 5"), "and binds before or");
        assert!(h("not not value = 5"));
        assert!(!h("NOT (value = 5 AND key != 'x')"));
        assert!(h(r#"json:["country"] = 'C\H'"#));
        let odd = r#"{"a]b":1,"x y":2,"p=q[":3,"d":[4,5]}"#;
        let h = |condition: &str| holds(condition, "k", odd, "text");
        assert!(h(r#"json:["a]b"] = 1 and json:["x y"]=2"#));
        assert!(h(r#"(json:["p=q["] = 3) and json:d[1] = 5 and json:$.d[0] = 4"#));
        assert!(!h(r#"json:["a]b"] = 2"#));
    }

    #[test]
    fn a_malformed_condition_says_what_is_wrong() {
        for bad in [
            "",
            "value",
            "value =",
            "value = 1 and",
            "(value = 1",
            "value = 1)",
            "value ! 1",
            "= 1",
            "size = 1",
            "value = 'x",
            "value 1",
            "value = 1 value = 2",
            "json:a..b = 1",
            "value = nan",
        ] {
            let error = parse(bad).map(|_| ()).unwrap_err();
            assert!(error.to_string().len() > 20, "{bad}: {error}");
        }
        let deep = format!("{}value = 1{}", "(".repeat(100), ")".repeat(100));
        assert!(parse(&deep).is_err());
    }
}
