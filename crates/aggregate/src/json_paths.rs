//! All JSON paths of a query, found in one pass over a value.
//!
//! A value is checked once for being JSON and walked once, however many paths are asked for: a
//! condition of hundreds of paths costs as much per byte as one of a single path. What is found is
//! the text as it stands there, so that numbers keep all of their digits.

use crate::JsonPath;
use crate::json_path::Step;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, HashMap};

/// Paths that share their beginnings; each has a slot.
#[derive(Debug, Clone, Default)]
pub(crate) struct JsonPaths {
    root: Node,
    count: usize,
}

/// A place that a path leads to or through.
#[derive(Debug, Clone, Default)]
struct Node {
    /// The slot of the path that ends here.
    slot: Option<usize>,
    /// Children by name and by index; values are positions in `children`.
    names: HashMap<Vec<u8>, usize>,
    indexes: BTreeMap<usize, usize>,
    children: Vec<Node>,
}

impl JsonPaths {
    /// Adds a path; returns its slot, which it shares with every equal path.
    pub fn add(&mut self, path: &JsonPath) -> usize {
        let mut node = &mut self.root;
        for step in path.steps() {
            let new = node.children.len();
            let at = match step {
                Step::Name(name) => *node.names.entry(name.clone().into_bytes()).or_insert(new),
                Step::Index(index) => *node.indexes.entry(*index).or_insert(new),
            };
            if at == new {
                node.children.push(Node::default());
            }
            node = &mut node.children[at];
        }
        *node.slot.get_or_insert_with(|| {
            self.count += 1;
            self.count - 1
        })
    }

    /// How many slots there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Hands what stands at each path to `put`, with the slot of the path. Nothing is found in a
    /// value that is not JSON. A name that occurs twice in an object counts as it first does.
    pub fn find<'v>(&self, value: &'v [u8], put: impl FnMut(usize, &'v str)) {
        if serde_json::from_slice::<IgnoredAny>(value).is_err() {
            return;
        }
        let mut walk = Walk { text: value, at: 0, put };
        walk.skip_space();
        walk.value(&self.root);
    }
}

/// A walk over text that is known to be JSON: it finds the ends of values and checks nothing. It
/// ends at the end of the text in any case.
struct Walk<'v, F> {
    text: &'v [u8],
    at: usize,
    put: F,
}

impl<'v, F: FnMut(usize, &'v str)> Walk<'v, F> {
    /// Walks over the value that begins here. Recurses as deep as paths have steps.
    fn value(&mut self, node: &Node) {
        let start = self.at;
        match self.peek() {
            Some(b'{') if !node.names.is_empty() => self.object(node),
            Some(b'[') if !node.indexes.is_empty() => self.array(node),
            _ => self.skip_value(),
        }
        if let Some(slot) = node.slot
            && let Ok(text) = std::str::from_utf8(&self.text[start..self.at])
        {
            (self.put)(slot, text);
        }
    }

    fn object(&mut self, node: &Node) {
        let mut seen = vec![false; node.children.len()];
        self.at += 1;
        while self.at < self.text.len() {
            self.skip_space();
            match self.peek() {
                Some(b'"') => {}
                Some(b',') => {
                    self.at += 1;
                    continue;
                }
                _ => break,
            }
            let start = self.at;
            self.skip_string();
            let child = self.child(node, start).filter(|child| !seen[*child]);
            self.skip_space();
            self.at += 1; // The colon.
            self.skip_space();
            match child {
                Some(child) => {
                    seen[child] = true;
                    self.value(&node.children[child]);
                }
                None => self.skip_value(),
            }
        }
        self.at = self.text.len().min(self.at + 1);
    }

    /// The child whose name is the string from `start` to here.
    fn child(&self, node: &Node, start: usize) -> Option<usize> {
        let quoted = &self.text[start..self.at];
        let name = quoted.get(1..quoted.len().saturating_sub(1))?;
        if name.contains(&b'\\') {
            let name: String = serde_json::from_slice(quoted).ok()?;
            return node.names.get(name.as_bytes()).copied();
        }
        node.names.get(name).copied()
    }

    fn array(&mut self, node: &Node) {
        self.at += 1;
        let mut index = 0;
        while self.at < self.text.len() {
            self.skip_space();
            match self.peek() {
                Some(b']') | None => break,
                Some(b',') => {
                    self.at += 1;
                    index += 1;
                }
                Some(_) => {
                    let start = self.at;
                    match node.indexes.get(&index) {
                        Some(child) => self.value(&node.children[*child]),
                        None => self.skip_value(),
                    }
                    if self.at == start {
                        break;
                    }
                }
            }
        }
        self.at = self.text.len().min(self.at + 1);
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn skip_string(&mut self) {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'\\') => self.at = self.text.len().min(self.at + 2),
                Some(b'"') => {
                    self.at += 1;
                    return;
                }
                Some(_) => self.at += 1,
                None => return,
            }
        }
    }

    fn skip_value(&mut self) {
        match self.peek() {
            Some(b'"') => self.skip_string(),
            Some(b'{' | b'[') => self.skip_nested(),
            _ => {
                while !matches!(
                    self.peek(),
                    None | Some(b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r')
                ) {
                    self.at += 1;
                }
            }
        }
    }

    fn skip_nested(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.skip_string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn found(paths: &[&str], value: &str) -> Vec<Option<String>> {
        let mut all = JsonPaths::default();
        let slots: Vec<_> =
            paths.iter().map(|path| all.add(&JsonPath::parse(path).unwrap())).collect();
        let mut texts = vec![None; all.count()];
        all.find(value.as_bytes(), |slot, text| texts[slot] = Some(text.to_owned()));
        slots.into_iter().map(|slot| texts[slot].clone()).collect()
    }

    #[test]
    fn paths_that_share_their_beginnings_are_all_found() {
        let value =
            r#" { "a" : { "b" : [ 1 , {"c": -1.50e2} , null ] , "b":2 } , "x\"y" : "p\"q" } "#;
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            found(&["a.b[1].c", "a.b[1]", "a.b[2]", "a.b[3]", "a.b.c", "a.b[0]", "a[0]"], value),
            [some("-1.50e2"), some(r#"{"c": -1.50e2}"#), some("null"), None, None, some("1"), None]
        );
        assert_eq!(found(&[r#"["x"y"]"#, "a", "a"], value)[0], some(r#""p\"q""#));
        assert_eq!(found(&["$"], " [1, 2] "), [some("[1, 2]")]);
        assert_eq!(found(&["a", "b"], r#"{"a":1,"b":2"#), [None, None], "not JSON");
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c\\\\\"\\[{}:, \u{e9}]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c\\\\]{1,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_parser_finds(
            value in json(),
            is_pretty in any::<bool>(),
            paths in prop::collection::vec(prop::collection::vec((any::<bool>(), "[a-c\\\\]{1,2}", 0_usize..4), 0..4), 1..8),
        ) {
            let (mut all, mut expected) = (JsonPaths::default(), Vec::new());
            for path in &paths {
                let (mut text, mut place) = ("$".to_owned(), Some(&value));
                for (is_name, name, index) in path {
                    if *is_name {
                        text += &format!("[\"{name}\"]");
                        place = place.and_then(|place| place.get(name.as_str()));
                    } else {
                        text += &format!("[{index}]");
                        place = place.and_then(|place| place.get(*index));
                    }
                }
                expected.push((all.add(&JsonPath::parse(&text).unwrap()), place));
            }
            let text = if is_pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            let mut found: Vec<Option<Value>> = vec![None; all.count()];
            all.find(text.as_bytes(), |slot, text| {
                found[slot] = Some(serde_json::from_str(text).unwrap());
            });
            for (slot, place) in expected {
                prop_assert_eq!(found[slot].as_ref(), place);
            }
        }
    }
}
