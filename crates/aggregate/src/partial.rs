//! A part of an answer.

use crate::numbers::{Needs, Numbers, Wide};
use crate::sketches::Distinct;
use crate::{AggregateError, Query, Result, Rules};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Memory that the groups of one answer may take, and bytes of a partial on the wire.
const BYTES_MAX: usize = 64 << 20;

/// What some rows come to: mergeable, in any order.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Partial {
    pub(crate) groups: Vec<Group>,
    #[serde(skip)]
    index: HashMap<Vec<u8>, usize>,
    #[serde(skip)]
    null: Option<usize>,
    #[serde(skip)]
    bytes: usize,
}

/// One group.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Group {
    /// None is the group `null`.
    pub name: Option<Vec<u8>>,
    /// Rows.
    pub rows: u64,
    /// Rows whose value is no number although one was needed.
    pub skipped: u64,
    pub numbers: Option<Numbers>,
    pub distinct: Option<Distinct>,
}

impl Group {
    fn new(name: Option<Vec<u8>>, needs: Needs) -> Self {
        Self {
            name,
            rows: 0,
            skipped: 0,
            numbers: needs.numbers.then(|| Numbers::new(needs)),
            distinct: needs.distinct.then(Distinct::default),
        }
    }

    pub fn size_bytes(&self) -> usize {
        let name = self.name.as_ref().map_or(0, Vec::len);
        let numbers = self.numbers.as_ref().map_or(0, Numbers::size_bytes);
        let distinct = self.distinct.as_ref().map_or(0, Distinct::size_bytes);
        // The name stands in the index as well.
        size_of::<Self>() + 2 * name + 64 + numbers + distinct
    }

    fn merge(&mut self, other: &Self) -> std::result::Result<(), String> {
        self.rows += other.rows;
        self.skipped += other.skipped;
        match (&mut self.numbers, &other.numbers) {
            (Some(mine), Some(other)) => mine.merge(other)?,
            (None, None) => {}
            _ => return Err("numbers are missing".to_owned()),
        }
        match (&mut self.distinct, &other.distinct) {
            (Some(mine), Some(other)) => mine.merge(other),
            (None, None) => {}
            _ => return Err("the distinct values are missing".to_owned()),
        }
        Ok(())
    }
}

impl Partial {
    /// Of no rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows that went in.
    pub fn rows(&self) -> u64 {
        self.groups.iter().map(|g| g.rows).sum()
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Memory that its groups take, in bytes: at least what they take on the wire.
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Where the group `name` stands; it is made if there is room.
    pub(crate) fn find(&mut self, name: Option<&[u8]>, needs: Needs, max: usize) -> Result<usize> {
        let known = match name {
            Some(name) => self.index.get(name).copied(),
            None => self.null,
        };
        match known {
            Some(at) => Ok(at),
            None => self.insert(Group::new(name.map(<[u8]>::to_vec), needs), max),
        }
    }

    fn insert(&mut self, group: Group, max: usize) -> Result<usize> {
        if self.groups.len() >= max {
            return Err(AggregateError::TooManyGroups { max });
        }
        let at = self.groups.len();
        match &group.name {
            Some(name) => {
                self.index.insert(name.clone(), at);
            }
            None => self.null = Some(at),
        }
        self.grew(group.size_bytes())?;
        self.groups.push(group);
        Ok(at)
    }

    /// Counts what a group takes more than before; an error if that is too much.
    pub(crate) fn grew(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes;
        if self.bytes > BYTES_MAX {
            return Err(AggregateError::TooLarge { max: BYTES_MAX });
        }
        Ok(())
    }

    /// Adds what other rows come to under the same query.
    pub fn merge(&mut self, other: Self, query: &Query) -> Result<()> {
        for group in other.groups {
            let known = match &group.name {
                Some(name) => self.index.get(name).copied(),
                None => self.null,
            };
            match known {
                Some(at) => {
                    let before = self.groups[at].size_bytes();
                    self.groups[at].merge(&group).map_err(AggregateError::Partial)?;
                    let after = self.groups[at].size_bytes();
                    self.grew(after.saturating_sub(before))?;
                }
                None => {
                    self.insert(group, query.groups_max)?;
                }
            }
        }
        Ok(())
    }

    /// Cuts it into partials of about so many bytes; at least one.
    pub fn split(self, bytes_max: usize) -> Vec<Self> {
        let mut parts = vec![Self::new()];
        let mut bytes = 0;
        for group in self.groups {
            let size = group.size_bytes();
            if bytes > 0 && bytes + size > bytes_max {
                parts.push(Self::new());
                bytes = 0;
            }
            bytes += size;
            // Only to travel: nothing is looked up in it any more.
            parts.last_mut().expect("at least one").groups.push(group);
        }
        parts
    }

    /// As it travels: the number of the rules, the groups, and from the second rules on what those
    /// groups have of it that the first do not know, by their places.
    pub fn encode(&self, query: &Query) -> Result<Vec<u8>> {
        let mut bytes = vec![query.rules.number() as u8];
        let config = bincode::config::standard();
        let bad = |e: bincode::error::EncodeError| AggregateError::Partial(e.to_string());
        bincode::serde::encode_into_std_write(&self.groups, &mut bytes, config).map_err(bad)?;
        if query.rules >= Rules::Second {
            let wide = self.groups.iter().enumerate();
            let wide = wide.filter_map(|(at, group)| Some((at, group.numbers.as_ref()?.wide()?)));
            let wide: Vec<(usize, &Wide)> = wide.collect();
            bincode::serde::encode_into_std_write(&wide, &mut bytes, config).map_err(bad)?;
        }
        Ok(bytes)
    }

    /// From the wire.
    pub fn decode(bytes: &[u8], query: &Query) -> Result<Self> {
        let bad = |why: String| AggregateError::Partial(why);
        let (&format, rest) = bytes.split_first().ok_or_else(|| bad("it is empty".to_owned()))?;
        let wanted = query.rules.number();
        if format > 0 && u32::from(format) < wanted {
            return Err(AggregateError::OlderRules);
        }
        if u32::from(format) != wanted {
            return Err(bad(format!("unknown format {format}")));
        }
        let config = bincode::config::standard().with_limit::<BYTES_MAX>();
        let (mut groups, mut read): (Vec<Group>, _) =
            bincode::serde::decode_from_slice(rest, config).map_err(|e| bad(e.to_string()))?;
        if query.rules >= Rules::Second {
            let (wide, more): (Vec<(usize, Wide)>, _) =
                bincode::serde::decode_from_slice(&rest[read..], config)
                    .map_err(|e| bad(e.to_string()))?;
            read += more;
            for (at, wide) in wide {
                let numbers = groups.get_mut(at).and_then(|group| group.numbers.as_mut());
                let numbers = numbers.ok_or_else(|| bad("decimals of no group".to_owned()))?;
                numbers.set_wide(wide).map_err(bad)?;
            }
        }
        if read != rest.len() {
            return Err(bad("bytes follow its end".to_owned()));
        }
        let mut partial = Self::new();
        let needs = Needs::of(query);
        for group in groups {
            let fits = group.numbers.is_some() == needs.numbers
                && group.distinct.is_some() == needs.distinct
                && group.numbers.as_ref().is_none_or(|n| n.fits(needs));
            if !fits {
                return Err(bad("it answers another query".to_owned()));
            }
            partial.insert(group, query.groups_max)?;
        }
        Ok(partial)
    }
}
