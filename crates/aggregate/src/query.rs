//! What is asked.

use crate::json_paths::JsonPaths;
use crate::number::Number;
use crate::{AggregateError, Decimal, Filter, Functions, GroupBy, Result, Rules, ValueSource};

/// Groups of one answer, unless the query says otherwise.
pub const GROUPS_MAX_DEFAULT: u32 = 10_000;
/// Groups that a query may ask for at most.
pub const GROUPS_MAX: u32 = 1_000_000;
/// Bytes of what says how values become numbers, and of what rows are grouped by, at most.
const TEXT_MAX: usize = 4 << 10;

/// A query as it is typed and as it travels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryText {
    /// `count,sum,…`
    pub functions: String,
    /// How values become numbers; empty: `text`.
    pub value: String,
    /// Which rows count; empty: all.
    pub filter: String,
    /// What they are grouped by; empty: nothing.
    pub group_by: String,
    /// Most groups; 0: [`GROUPS_MAX_DEFAULT`].
    pub groups_max: u32,
}

/// What to compute over the rows of a span.
#[derive(Debug, Clone)]
pub struct Query {
    pub(crate) functions: Functions,
    pub(crate) source: ValueSource,
    pub(crate) filter: Option<Filter>,
    pub(crate) group_by: Option<GroupBy>,
    pub(crate) groups_max: usize,
    pub(crate) rules: Rules,
    /// Every JSON path of the query; the slots of the two that are not in the condition.
    pub(crate) paths: JsonPaths,
    pub(crate) source_slot: Option<usize>,
    pub(crate) group_slot: Option<usize>,
}

impl Query {
    /// Reads a query.
    pub fn parse(text: &QueryText) -> Result<Self> {
        let or = |text: &String, default: &str| {
            if text.is_empty() { default.to_owned() } else { text.clone() }
        };
        if text.groups_max > GROUPS_MAX {
            return Err(AggregateError::query(format!(
                "the limit of groups is {}: at most {GROUPS_MAX} are allowed",
                text.groups_max
            )));
        }
        for (what, text) in [("kind of value", &text.value), ("grouping", &text.group_by)] {
            if text.len() > TEXT_MAX {
                let why = format!("the {what} is described in more than {TEXT_MAX} bytes");
                return Err(AggregateError::query(why));
            }
        }
        let some = |text: &String| (!text.trim().is_empty()).then_some(()).is_some();
        let functions: Functions = text.functions.parse()?;
        let source: ValueSource = or(&text.value, "text").parse()?;
        let mut paths = JsonPaths::default();
        let filter = some(&text.filter).then(|| Filter::parse(&text.filter, &mut paths));
        let filter = filter.transpose()?;
        let group_by =
            some(&text.group_by).then(|| text.group_by.parse::<GroupBy>()).transpose()?;
        let source_slot = source.path().map(|path| paths.add(path));
        let group_slot = match &group_by {
            Some(GroupBy::Json(path, _)) => Some(paths.add(path)),
            _ => None,
        };
        Ok(Self {
            functions,
            source,
            filter,
            group_by,
            groups_max: match text.groups_max {
                0 => GROUPS_MAX_DEFAULT as usize,
                max => max as usize,
            },
            rules: Rules::default(),
            paths,
            source_slot,
            group_slot,
        })
    }

    /// The same, computed by `rules`.
    pub fn under(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// The number that a part of a value stands for.
    #[inline]
    pub(crate) fn number(&self, part: &[u8]) -> Option<Number> {
        if self.rules < Rules::Second && self.source == ValueSource::Text {
            // Without exponents.
            return Decimal::parse(part).map(Number::Decimal);
        }
        self.source.number(part)
    }

    /// By which rules it is computed.
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// What is computed.
    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// Whether there is one group for all rows.
    pub fn is_grouped(&self) -> bool {
        self.group_by.is_some()
    }

    /// Whether nothing but the keys of rows is looked at.
    pub fn is_keys_only(&self) -> bool {
        let keys_group = !matches!(self.group_by, Some(GroupBy::Json(..)));
        keys_group && self.filter.is_none() && !self.functions.any(|f| f != crate::Function::Count)
    }
}
