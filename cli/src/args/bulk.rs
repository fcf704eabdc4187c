//! `import` and `export`.

use super::Span;
use crate::numbers::within;
use crate::text::At;
use clap::{Args as ClapArgs, ValueEnum};
use isotherm_types::limits;
use std::path::PathBuf;

/// The form of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// Tab-separated, no header
    Tsv,
    /// Comma-separated, with a header
    Csv,
    /// One JSON object per line
    Jsonl,
}

/// `import`
#[derive(Debug, ClapArgs)]
pub struct Import {
    /// The file; - is stdin
    pub file: PathBuf,
    /// [default: by the file's name, else tsv]
    #[arg(long)]
    pub format: Option<FileFormat>,
    /// Column of the key: a name or a number from 1
    #[arg(long)]
    pub key: Option<String>,
    /// Column of the value: a name or a number from 1
    #[arg(long)]
    pub value: Option<String>,
    /// Put this before every key
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// First split the span of the keys into this many ranges, from 1 to 10000, by a sample of them
    #[arg(long, value_parser = within(1..=limits::BOOTSTRAP_RANGES_MAX))]
    pub presplit: Option<usize>,
}

/// `export`
#[derive(Debug, ClapArgs)]
pub struct Export {
    #[command(flatten)]
    pub span: Span,
    /// As of a past time: a timestamp, -30s, or an RFC 3339 time
    #[arg(long, allow_hyphen_values = true)]
    pub at: Option<At>,
    #[arg(long, default_value = "jsonl")]
    pub format: FileFormat,
}
