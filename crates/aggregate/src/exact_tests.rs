//! Every number counts, or is counted as left out; what differs is told apart; and what a process of the
//! version before understands.
#![allow(clippy::unwrap_used)]

use crate::tests::{figures, fold, query};
use crate::{AggregateError, Figure, Fold, Partial, Query, QueryText, Rules};

/// `function=figure` for the only group, under a condition.
fn figures_where(functions: &str, value: &str, filter: &str, values: &[&str]) -> String {
    let query = query(functions, value, filter, "");
    let answer = fold(&query, values.iter().map(|v| ("k", *v))).finish(&query);
    let figures = answer.groups[0].figures.iter().map(|(f, figure)| format!("{f}={figure:?}"));
    format!(
        "{} rows={} skipped={}",
        figures.collect::<Vec<_>>().join(" "),
        answer.rows,
        answer.skipped
    )
}

#[test]
fn every_decimal_that_a_double_prints_as_is_a_number() {
    assert_eq!(
        figures(
            "count,sum,min,max",
            "text",
            &["1e-7", "2.5E+3", "-1e25", "1e25", "0.1234567890123456789"]
        ),
        "count=5 sum=2500.1234568890123456789 min=-10000000000000000000000000 \
         max=10000000000000000000000000"
    );
    assert_eq!(
        figures("sum", "text", &["1.7976931348623157e308", "5e-324", "-1.7976931348623157e308"]),
        "sum=5e-324"
    );
    assert_eq!(figures("sum,avg", "text", &["3e300", "1e300", "-1e300"]), "sum=3e300 avg=1e300");
    assert_eq!(
        figures(
            "sum,max",
            "json:n",
            &[r#"{"n":123456789012345678901234567890123456789012345}"#, r#"{"n":1}"#]
        ),
        "sum=123456789012345678901234567890123456789012346 max=123456789012345678901234567890123456789012345"
    );
    // What is none, or beyond every double, is counted.
    let odd = ["1e309", "1e-400", "inf", "NaN", "e5", "1e", ".", "1e5.5", "x", "7"];
    assert_eq!(figures("count,sum", "text", &odd), "count=10 sum=7 skipped=9");
}

#[test]
fn means_and_deviations_have_significant_digits() {
    assert_eq!(figures("avg", "text", &["1e-18", "0", "0"]), "avg=3.33333333333333333e-19");
    assert_eq!(
        figures("avg,stddev", "text", &["1e-20", "2e-20", "3e-20"]),
        "avg=2e-20 stddev=1e-20"
    );
    assert_eq!(figures("avg", "text", &["1", "0", "0"]), "avg=0.333333333333333333");
    assert_eq!(figures("avg", "text", &["-0.001", "0", "0"]), "avg=-0.000333333333333333333");
    assert_eq!(figures("avg", "text", &["1e-300", "0"]), "avg=5e-301");
    assert_eq!(
        figures("avg,stddev", "text", &["1e-30", "-1e-30"]),
        "avg=0 stddev=1.41421356237309505e-30"
    );
}

#[test]
fn what_cannot_be_added_up_is_counted_under_a_condition_too() {
    let shown = |figure: &str| format!("sum=Number({figure:?})");
    for (value, values) in [
        ("text", ["1e400", "6", "4"]),
        ("f64", ["1e999", "6", "4"]),
        ("i64", ["99999999999999999999", "6", "4"]),
    ] {
        let found = figures_where("sum", value, "value > 5", &values);
        assert_eq!(found, format!("{} rows=2 skipped=1", shown("6")), "{value}");
        assert_eq!(figures("sum", value, &values), "sum=10 skipped=1", "{value}");
    }
    assert_eq!(figures("max", "f64", &["inf", "-1e999", "2"]), "max=Infinity skipped=1");
}

#[test]
fn quantiles_are_near_over_all_doubles() {
    for (values, p50) in [
        (&["1e-18", "2e-18", "3e-18", "1e20"][..], 2e-18),
        (&["1e-300", "2e-300", "3e-300", "1e300"], 2e-300),
        (&["-1e300", "-2e-300", "1e-310", "5", "1e308"], 1e-310),
    ] {
        for source in ["text", "f64"] {
            let query = query("p50", source, "", "");
            let answer = fold(&query, values.iter().map(|v| ("k", *v))).finish(&query);
            let Figure::Number(digits) = &answer.groups[0].figures[0].1 else { panic!() };
            let found: f64 = digits.parse().unwrap();
            assert!((found - p50).abs() <= 0.0101 * p50, "{values:?}: {found}, exactly {p50}");
        }
    }
}

#[test]
fn memory_of_far_apart_values_is_bounded() {
    for functions in ["p50", "sum,stddev"] {
        let text = QueryText {
            functions: functions.into(),
            group_by: "prefix:4".into(),
            groups_max: 1_000_000,
            ..Default::default()
        };
        let query = Query::parse(&text).unwrap();
        let mut fold = Fold::new(&query);
        let values = [&b"1e-300"[..], b"1e300", b"-1e-300", b"-1e300"];
        let mut groups = 0_u32;
        let refused = (0..1_000_000_u32).find_map(|n| {
            groups = n;
            values.iter().find_map(|value| fold.add(&n.to_be_bytes(), value).err())
        });
        assert!(matches!(refused, Some(AggregateError::TooLarge { .. })), "{refused:?}");
        // What two buckets far apart take is counted at once.
        assert!(groups < if functions == "p50" { 100 } else { 40_000 }, "{groups}");
    }
}

#[test]
fn what_differs_is_distinct_and_a_group_of_its_own() {
    let distinct = |value: &str, values: &[&str]| figures("distinct", value, values);
    assert_eq!(distinct("text", &["abcdefgh", "abcdefgh\0", "abcdefgh"]), "distinct=2");
    let long = ["0123456789abcdef", "0123456789abcdef\0", "0123456789abcdef\0\0"];
    assert_eq!(distinct("text", &long), "distinct=3");
    let types = [
        r#"{"n":null}"#,
        r#"{"n":"null"}"#,
        r#"{"n":true}"#,
        r#"{"n":"true"}"#,
        r#"{"n":5}"#,
        r#"{"n":"5"}"#,
        r#"{"n":[5]}"#,
        r#"{"n":"[5]"}"#,
        r#"{"n":5.0}"#,
        r#"{"n":1e40}"#,
        r#"{"n":10e39}"#,
        r#"{"n":"1e40"}"#,
    ];
    assert_eq!(distinct("json:n", &types), "distinct=10");
    let query = query("count", "", "", "json:n");
    let answer = fold(&query, types.iter().map(|v| ("k", *v))).finish(&query);
    let names: Vec<_> =
        answer.groups.iter().map(|g| g.name.as_deref().map(String::from_utf8_lossy)).collect();
    let mut seen = names.clone();
    seen.dedup();
    assert_eq!((names.len(), seen.len()), (12, 12), "{names:?}");
}

/// What the version before wrote for `sum,distinct` of 1.5 and -2.25.
const BEFORE: &[u8] = &[
    1, 1, 0, 2, 0, 1, 2, 0, 254, 0, 0, 117, 66, 249, 118, 151, 245, 255, 255, 255, 255, 255, 255,
    255, 255, 1, 0, 253, 255, 255, 65, 113, 40, 54, 115, 62, 253, 0, 0, 44, 246, 26, 36, 162, 41,
    0, 1, 16, 2, 1, 7, 12, 3, 8, 2, 8, 162, 194, 87, 9, 181, 23, 236, 5,
];

/// What a process of the version before asks for, and understands.
#[test]
fn partials_by_the_first_rules_are_as_they_were() {
    let of = |functions: &str, group_by: &str| {
        query(functions, "text", "", group_by).under(Rules::First)
    };
    let first = of("sum,p50,stddev", "");
    assert_eq!(
        (Rules::agreed(0), Rules::agreed(1), Rules::agreed(9)),
        (Rules::First, Rules::First, Rules::Second)
    );
    let partial = fold(&first, [("k", "1.5"), ("k", "1e25"), ("k", "2.5")]);
    let bytes = partial.encode(&first).unwrap();
    assert_eq!(bytes[0], 1);
    let answer = Partial::decode(&bytes, &first).unwrap().finish(&first);
    assert_eq!((answer.rows, answer.skipped), (3, 1));
    assert_eq!(answer.groups[0].figures[0].1, Figure::Number("4".to_owned()));
    let sum = query("sum,distinct", "text", "", "").under(Rules::First);
    let partial = fold(&sum, [("k", "1.5"), ("k", "-2.25")]);
    assert_eq!(Partial::decode(BEFORE, &sum).unwrap().finish(&sum), partial.clone().finish(&sum));
    assert_eq!(partial.encode(&sum).unwrap(), BEFORE);
    let second = query("sum,distinct", "text", "", "");
    assert_eq!(Partial::decode(BEFORE, &second).map(|_| ()), Err(AggregateError::OlderRules));
}
