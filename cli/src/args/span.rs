//! Commands on the keys of a span.

use crate::text::At;
use clap::Args as ClapArgs;

/// `delete`
#[derive(Debug, ClapArgs)]
pub struct Delete {
    #[arg(required_unless_present_any = ["prefix", "all"], conflicts_with_all = ["prefix", "all"])]
    pub key: Option<String>,
    /// Remove all keys that begin with this
    #[arg(long)]
    pub prefix: Option<String>,
    /// Remove every key of the cluster
    #[arg(long, conflicts_with = "prefix")]
    pub all: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Which keys.
#[derive(Debug, Clone, ClapArgs)]
pub struct Span {
    /// Keys that begin with this
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub prefix: Option<String>,
    /// From this key on
    #[arg(long)]
    pub from: Option<String>,
    /// Up to, and without, this key
    #[arg(long)]
    pub to: Option<String>,
}

/// `scan`
#[derive(Debug, ClapArgs)]
pub struct Scan {
    #[command(flatten)]
    pub span: Span,
    /// Most rows
    #[arg(long)]
    pub limit: Option<u64>,
    /// From the last key downwards
    #[arg(long)]
    pub reverse: bool,
    /// Leave the values out
    #[arg(long)]
    pub keys_only: bool,
    /// As of a past time: a timestamp, -30s, or an RFC 3339 time
    #[arg(long, allow_hyphen_values = true)]
    pub at: Option<At>,
}

/// `aggregate`
#[derive(Debug, ClapArgs)]
pub struct Aggregate {
    #[command(flatten)]
    pub span: Span,
    /// What to compute: any of count, sum, avg, min, max, stddev, distinct, p50, p99.9, …
    #[arg(long = "fn", value_name = "FUNCTIONS", default_value = "count")]
    pub functions: String,
    /// How values become numbers: text, i64, f64 (as text), i64le, i64be, f64le, f64be (8 bytes),
    /// json:PATH, json-f64:PATH
    #[arg(long, value_name = "KIND", default_value = "text")]
    pub value: String,
    /// Which rows count, such as: value > 10 and not json:country = 'CH'
    #[arg(long = "where", value_name = "CONDITION")]
    pub filter: Option<String>,
    /// One answer for each: prefix:BYTES, split:SEPARATOR:FIELD (the first is 1), json:PATH
    #[arg(long, value_name = "GROUP")]
    pub group_by: Option<String>,
    /// Most groups; more are an error [default: 10000]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub max_groups: u32,
    /// As of a past time: a timestamp, -30s, or an RFC 3339 time
    #[arg(long, allow_hyphen_values = true)]
    pub at: Option<At>,
    /// In JSON, figures are strings of their digits: common parsers take numbers above 2⁵³ for others
    #[arg(long)]
    pub number_strings: bool,
    /// Show what was read where, and how long it took
    #[arg(long)]
    pub explain: bool,
}
