//! The note in a data directory that something in it is damaged.

use isotherm_types::limits::cut_text;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// The layout that this software writes.
const FORMAT: u32 = 1;

/// What is damaged, and since when that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    format: u32,
    /// For people.
    pub what: String,
    /// Unix time.
    pub noticed_ms: u64,
}

impl Damage {
    pub(super) fn new(what: &str) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let noticed_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let mut what = what.to_owned();
        cut_text(&mut what);
        Self { format: FORMAT, what, noticed_ms }
    }

    /// A note that cannot be read is one all the same.
    pub(super) fn read(text: &[u8]) -> Self {
        serde_json::from_slice(text).unwrap_or_else(|_| Self {
            format: 0,
            what: "the note of what is damaged cannot be read".to_owned(),
            noticed_ms: 0,
        })
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("numbers and text are JSON");
        text.push(b'\n');
        text
    }
}
