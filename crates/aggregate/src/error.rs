//! What can be wrong with an aggregate.

/// Why an aggregate cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AggregateError {
    /// The query makes no sense; says which part and what would.
    #[error("{0}")]
    Query(String),
    /// More groups than allowed.
    #[error(
        "there are more than {max} groups: narrow the span or the condition, group by less, or \
         raise the limit of groups"
    )]
    TooManyGroups {
        /// The limit.
        max: usize,
    },
    /// The groups take more memory than one answer may.
    #[error(
        "the groups take more than {max} bytes: narrow the span or the condition, group by less, \
         or ask for fewer functions"
    )]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// A partial that was computed by older rules than the query names.
    #[error("a partial aggregate was computed by rules of an older version")]
    OlderRules,
    /// A partial that this version does not understand.
    #[error("a partial aggregate is malformed: {0}")]
    Partial(String),
}

impl AggregateError {
    pub(crate) fn query(why: impl Into<String>) -> Self {
        Self::Query(why.into())
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, AggregateError>;

/// The beginning of what somebody typed, for a message: what is wrong with a long text is said
/// without repeating all of it.
pub(crate) fn excerpt(text: &str) -> std::borrow::Cow<'_, str> {
    const CHARS_MAX: usize = 80;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}
