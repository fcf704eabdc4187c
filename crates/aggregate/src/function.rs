//! What is computed.

use crate::error::excerpt;
use crate::{AggregateError, Result};
use std::fmt;
use std::str::FromStr;

/// One function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// Rows.
    Count,
    /// Sum of the values.
    Sum,
    /// Their mean.
    Avg,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// Standard deviation of the sample.
    Stddev,
    /// How many different values there are, about.
    Distinct,
    /// A quantile, in millionths: p50 is 500,000.
    Quantile(u32),
}

impl Function {
    /// Whether it needs values to be numbers.
    pub fn is_numeric(self) -> bool {
        !matches!(self, Self::Count | Self::Distinct)
    }
}

impl FromStr for Function {
    type Err = AggregateError;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "count" => Self::Count,
            "sum" => Self::Sum,
            "avg" => Self::Avg,
            "min" => Self::Min,
            "max" => Self::Max,
            "stddev" => Self::Stddev,
            "distinct" => Self::Distinct,
            _ => {
                let percent =
                    text.strip_prefix('p').and_then(|p| crate::Decimal::parse(p.as_bytes()));
                let percent = percent.filter(|p| {
                    (0..=100 * 10_i128.pow(18)).contains(&p.0) && p.0 % 10_i128.pow(14) == 0
                });
                let Some(percent) = percent else {
                    let text = excerpt(text);
                    return Err(AggregateError::query(format!(
                        "{text:?} is no function: use count, sum, avg, min, max, stddev, distinct, or a \
                         quantile such as p50 or p99.9"
                    )));
                };
                Self::Quantile((percent.0 / 10_i128.pow(14)) as u32)
            }
        })
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Stddev => "stddev",
            Self::Distinct => "distinct",
            Self::Quantile(millionths) => {
                let percent = crate::Decimal(i128::from(*millionths) * 10_i128.pow(14));
                return write!(f, "p{percent}");
            }
        })
    }
}

/// What is computed in one pass: at least one function, each once, in the order asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Functions(Vec<Function>);

impl Functions {
    /// Functions of one pass at most.
    const MAX: usize = 64;
    /// Bytes of their names at most.
    const TEXT_MAX: usize = 4 << 10;

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Function> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn any(&self, wanted: impl Fn(Function) -> bool) -> bool {
        self.iter().any(wanted)
    }
}

impl FromStr for Functions {
    type Err = AggregateError;

    fn from_str(text: &str) -> Result<Self> {
        // Before anything is looked at: a long list must not be gone through.
        if text.len() > Self::TEXT_MAX {
            let max = Self::TEXT_MAX;
            return Err(AggregateError::query(format!("the functions have more than {max} bytes")));
        }
        let mut functions = Vec::new();
        for name in text.split(',') {
            let function = name.trim().parse()?;
            if functions.contains(&function) {
                continue;
            }
            if functions.len() == Self::MAX {
                let max = Self::MAX;
                return Err(AggregateError::query(format!(
                    "more than {max} functions in one pass"
                )));
            }
            functions.push(function);
        }
        Ok(Self(functions))
    }
}

impl fmt::Display for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, function) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{function}")?;
        }
        Ok(())
    }
}
