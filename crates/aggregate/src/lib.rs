//! What an aggregate is: how values become numbers, and how parts of an answer become one.
//!
//! A [`Query`] says what to compute. Whoever holds rows folds them into a [`Partial`]
//! ([`Fold::add`]); partials of disjoint spans merge in any order ([`Partial::merge`]) and become an
//! [`Answer`] at the end. No function's answer depends on how the span was cut or in which order
//! the parts arrived: sums are exact until they are rounded once, sketches are estimated after
//! their union only.
//!
//! | value | numbers | sum |
//! |---|---|---|
//! | `text`, `i64`, `i64le`, `i64be`, `json:PATH` | [`Decimal`]: multiples of 10⁻¹⁸ in 128 bits; what is none, digit by digit from 10⁻³⁴² to the largest double | exact: 192 bits, and decimal limbs for the others |
//! | `f64`, `f64le`, `f64be`, `json-f64:PATH` | IEEE doubles | [`FloatSum`], exact, rounded once |
//!
//! `avg` and `stddev` (of the sample, as in PostgreSQL) are computed from exact sums of values and
//! squares. `distinct` is a HyperLogLog sketch (Flajolet et al. 2007; Heule et al. 2013), quantiles
//! come from a DDSketch (Masson, Rim and Lee 2019) with 1 % relative error over all doubles. Whatever
//! is no number is counted as skipped. [`Rules`] says which of this a process of another version knows.
//! No IO, no clock.

mod answer;
mod big_decimal;
mod decimal;
mod decimal_sum;
mod error;
#[cfg(test)]
mod exact_tests;
mod filter;
mod float_sum;
mod fold;
mod function;
mod group_by;
mod json_path;
mod json_paths;
mod lexer;
mod number;
mod numbers;
mod partial;
mod query;
mod ratio;
mod row;
mod rules;
mod scalar;
mod sketches;
#[cfg(test)]
mod tests;
mod value;
mod wide_sum;

pub use answer::{Answer, Figure, Finishing, GroupAnswer};
pub use decimal::Decimal;
pub use decimal_sum::DecimalSum;
pub use error::{AggregateError, Result};
pub use filter::Filter;
pub use float_sum::FloatSum;
pub use fold::Fold;
pub use function::{Function, Functions};
pub use group_by::GroupBy;
pub use json_path::JsonPath;
pub use partial::Partial;
pub use query::{GROUPS_MAX, GROUPS_MAX_DEFAULT, Query, QueryText};
pub use rules::Rules;
pub use value::ValueSource;
