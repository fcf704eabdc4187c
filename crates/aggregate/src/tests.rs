#![allow(clippy::unwrap_used)]

use crate::{AggregateError, Figure, Fold, Partial, Query, QueryText};
use proptest::prelude::*;
use std::time::{Duration, Instant};

pub(crate) fn query(functions: &str, value: &str, filter: &str, group_by: &str) -> Query {
    Query::parse(&QueryText {
        functions: functions.to_owned(),
        value: value.to_owned(),
        filter: filter.to_owned(),
        group_by: group_by.to_owned(),
        groups_max: 0,
    })
    .unwrap()
}

pub(crate) fn fold<'r>(
    query: &Query,
    rows: impl IntoIterator<Item = (&'r str, &'r str)>,
) -> Partial {
    let mut fold = Fold::new(query);
    for (key, value) in rows {
        fold.add(key.as_bytes(), value.as_bytes()).unwrap();
    }
    fold.finish()
}

/// `function=figure` for the only group.
pub(crate) fn figures(functions: &str, value: &str, values: &[&str]) -> String {
    let query = query(functions, value, "", "");
    let answer = fold(&query, values.iter().map(|v| ("k", *v))).finish(&query);
    let shown = |figure: &Figure| match figure {
        Figure::None => "null".to_owned(),
        Figure::Number(digits) => digits.clone(),
        Figure::Special(name) => (*name).to_owned(),
    };
    let figures = &answer.groups[0].figures;
    let mut line: Vec<_> =
        figures.iter().map(|(f, figure)| format!("{f}={}", shown(figure))).collect();
    if answer.skipped > 0 {
        line.push(format!("skipped={}", answer.skipped));
    }
    line.join(" ")
}

const EXACT: &str = "count,sum,avg,min,max,stddev";

#[test]
fn decimals_are_summed_exactly() {
    assert_eq!(
        figures(EXACT, "text", &["0.1", "0.2", "-1.3", "x"]),
        "count=4 sum=-1 avg=-0.333333333333333333 min=-1.3 max=0.2 stddev=0.838649708360608287 skipped=1"
    );
    assert_eq!(
        figures(EXACT, "i64", &["9223372036854775807"; 40]),
        "count=40 sum=368934881474191032280 avg=9223372036854775807 min=9223372036854775807 \
         max=9223372036854775807 stddev=0"
    );
    assert_eq!(
        figures(
            EXACT,
            "i64",
            &["-9223372036854775808", "9223372036854775807", "9223372036854775808", "1.5"]
        ),
        "count=4 sum=-1 avg=-0.5 min=-9223372036854775808 max=9223372036854775807 \
         stddev=13043817825332782211.642465025065960844 skipped=2"
    );
}

#[test]
fn doubles_are_rounded_once() {
    assert_eq!(
        figures(EXACT, "f64", &["1e308", "1e308", "1", "-1e308", "-1e308", "NaN", "nope"]),
        "count=7 sum=1 avg=0.2 min=-1e308 max=1e308 stddev=1e308 skipped=2"
    );
    assert_eq!(figures("sum,avg", "f64", &["0.1"; 10]), "sum=1 avg=0.1");
    assert_eq!(
        figures(EXACT, "f64", &["inf", "1"]),
        "count=2 sum=Infinity avg=Infinity min=1 max=Infinity stddev=NaN"
    );
    assert_eq!(figures("sum,max", "f64", &["inf", "-inf"]), "sum=NaN max=Infinity");
    assert_eq!(figures("min,max", "f64", &["0", "-0"]), "min=-0 max=0");
}

#[test]
fn nothing_and_one_value_have_answers() {
    assert_eq!(
        figures("count,sum,avg,min,max,stddev,distinct,p50", "text", &[]),
        "count=0 sum=0 avg=null min=null max=null stddev=null distinct=0 p50=null"
    );
    assert_eq!(
        figures("count,sum,avg,min,max,stddev,distinct,p50", "text", &["7.5"]),
        "count=1 sum=7.5 avg=7.5 min=7.5 max=7.5 stddev=null distinct=1 p50=7.5"
    );
}

#[test]
fn binary_and_json_values_are_numbers_too() {
    let query = query("sum", "i64be", "", "");
    let mut fold = Fold::new(&query);
    for value in [i64::MIN, 5, -3] {
        fold.add(b"k", &value.to_be_bytes()).unwrap();
    }
    let answer = fold.finish().finish(&query);
    assert_eq!(answer.groups[0].figures[0].1, Figure::Number("-9223372036854775806".to_owned()));
    let rows = [
        r#"{"a":{"n":1.5e1}}"#,
        r#"{"a":{"n":0.1}}"#,
        r#"{"a":{"n":"7"}}"#,
        r#"{"a":{"n":1e-30}}"#,
        "{}",
    ];
    assert_eq!(
        figures("sum", "json:a.n", &rows),
        "sum=15.100000000000000000000000000001 skipped=2"
    );
    assert_eq!(figures("sum", "json-f64:a.n", &rows), "sum=15.1 skipped=2");
}

#[test]
fn quantiles_and_distinct_are_near() {
    let values: Vec<String> = (1..=20_000).map(|v| v.to_string()).collect();
    let query = query("distinct,p0,p50,p99,p99.9,p100", "text", "", "");
    let answer = fold(&query, values.iter().map(|v| ("k", v.as_str()))).finish(&query);
    for ((function, figure), exact) in
        answer.groups[0].figures.iter().zip([20_000.0, 1.0, 10_000.0, 19_800.0, 19_980.0, 20_000.0])
    {
        let Figure::Number(digits) = figure else { panic!("{function}: {figure:?}") };
        let error = (digits.parse::<f64>().unwrap() - exact).abs() / exact;
        let allowed = if function.to_string() == "distinct" { 0.05 } else { 0.0101 };
        assert!(error <= allowed, "{function} = {digits}, exactly {exact}");
    }
    assert_eq!(figures("distinct", "text", &["1", "1.0", "01", "a", "a", ""]), "distinct=3");
    assert_eq!(
        figures("p0,p50,p100", "f64", &["-inf", "inf", "3"]),
        "p0=-Infinity p50=3 p100=Infinity"
    );
}

#[test]
fn rows_are_filtered_and_grouped() {
    let query = query("count,sum", "json:n", "json:n > 1 and key != 'skip/me'", "split:/:1");
    let rows = [
        ("a/1", r#"{"n":2}"#),
        ("a/2", r#"{"n":1}"#),
        ("b/1", r#"{"n":5}"#),
        ("b/2", r#"{"n":5.5}"#),
        ("skip/me", r#"{"n":9}"#),
        ("none", r#"{"n":9}"#),
    ];
    let answer = fold(&query, rows).finish(&query);
    assert_eq!(answer.rows, 4);
    let groups: Vec<_> = answer
        .groups
        .iter()
        .map(|g| {
            (String::from_utf8(g.name.clone().unwrap()).unwrap(), g.rows, g.figures[1].1.clone())
        })
        .collect();
    let number = |n: &str| Figure::Number(n.to_owned());
    assert_eq!(
        groups,
        [
            ("a".to_owned(), 1, number("2")),
            ("b".to_owned(), 2, number("10.5")),
            ("none".to_owned(), 1, number("9"))
        ]
    );
}

#[test]
fn groups_are_bounded() {
    let text = QueryText {
        functions: "count".into(),
        group_by: "prefix:9".into(),
        groups_max: 2,
        ..Default::default()
    };
    let query = Query::parse(&text).unwrap();
    let mut fold = Fold::new(&query);
    fold.add(b"a", b"").unwrap();
    fold.add(b"b", b"").unwrap();
    fold.add(b"a", b"").unwrap();
    assert_eq!(fold.add(b"c", b""), Err(AggregateError::TooManyGroups { max: 2 }));
    let (mut one, mut two) = (Fold::new(&query), Fold::new(&query));
    one.add(b"a", b"").unwrap();
    one.add(b"b", b"").unwrap();
    two.add(b"c", b"").unwrap();
    let mut merged = one.finish();
    assert!(merged.merge(two.finish(), &query).is_err(), "bounded at the merge too");
    assert!(Query::parse(&QueryText { groups_max: 1_000_001, ..text }).is_err());
}

#[test]
fn memory_is_bounded() {
    let text = QueryText {
        functions: "distinct,p50".into(),
        group_by: "prefix:4".into(),
        groups_max: 1_000_000,
        ..Default::default()
    };
    let query = Query::parse(&text).unwrap();
    let mut fold = Fold::new(&query);
    let refused = (0..1_000_000_u32).find_map(|n| fold.add(&n.to_be_bytes(), b"12").err());
    assert!(matches!(refused, Some(AggregateError::TooLarge { .. })), "{refused:?}");
}

#[test]
fn a_partial_of_another_query_or_version_is_refused() {
    let sum = query("sum", "text", "", "");
    let partial = fold(&sum, [("a", "1")]);
    let bytes = partial.encode(&sum).unwrap();
    assert_eq!(Partial::decode(&bytes, &sum).unwrap().finish(&sum), partial.finish(&sum));
    assert_eq!(bytes[0], 2, "the second rules");
    for other in [
        query("count", "text", "", ""),
        query("sum", "f64", "", ""),
        query("sum,stddev", "text", "", ""),
    ] {
        assert!(Partial::decode(&bytes, &other).is_err());
    }
    for cut in 0..bytes.len() {
        assert!(Partial::decode(&bytes[..cut], &sum).is_err(), "{cut} bytes");
    }
    let mut newer = bytes.clone();
    newer[0] = 3;
    assert!(Partial::decode(&newer, &sum).is_err());
    assert!(Partial::decode(&[&bytes[..], &[0]].concat(), &sum).is_err());
}

#[test]
fn a_query_that_makes_no_sense_says_why() {
    let parse = |functions: &str, value: &str, filter: &str, group_by: &str| {
        Query::parse(&QueryText {
            functions: functions.into(),
            value: value.into(),
            filter: filter.into(),
            group_by: group_by.into(),
            groups_max: 0,
        })
    };
    assert!(parse("sum", "", "", "").is_ok());
    for (functions, value, filter, group_by) in [
        ("", "", "", ""),
        ("median", "", "", ""),
        ("p101", "", "", ""),
        ("p-1", "", "", ""),
        ("sum,,avg", "", "", ""),
        ("sum", "int", "", ""),
        ("sum", "json:a..b", "", ""),
        ("sum", "", "value", ""),
        ("sum", "", "", "key"),
    ] {
        let error = parse(functions, value, filter, group_by).map(|_| ()).unwrap_err();
        assert!(matches!(error, AggregateError::Query(_)), "{error}");
    }
}

/// Rows whose values are of every kind, in extremes and in clusters.
fn rows() -> impl Strategy<Value = Vec<(String, String)>> {
    let value = prop_oneof![
        any::<i64>().prop_map(|v| v.to_string()),
        (-1000_i32..1000, 0_u32..100_000).prop_map(|(w, f)| format!("{w}.{f}")),
        any::<u64>().prop_map(|bits| format!("{:?}", f64::from_bits(bits))),
        ("[0-9]{1,60}", -400_i32..300).prop_map(|(digits, e)| format!("{digits}e{e}")),
        (0_i32..5).prop_map(|v| v.to_string()),
        Just("inf".to_owned()),
        Just("-inf".to_owned()),
        Just("NaN".to_owned()),
        Just("-0".to_owned()),
        "[a-c]{0,2}",
    ];
    prop::collection::vec(("[ab]/[a-d]{1,2}", value), 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_function_is_the_same_however_the_span_is_cut(
        rows in rows(), cuts in prop::collection::vec(0usize..300, 0..8), order in any::<u64>(), is_float in any::<bool>(), grouped in any::<bool>(),
    ) {
        let query = query(
            "count,sum,avg,min,max,stddev,distinct,p1,p50,p99.9",
            if is_float { "f64" } else { "text" },
            "",
            if grouped { "split:/:2" } else { "" },
        );
        let rows: Vec<_> = rows.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let whole = fold(&query, rows.iter().copied()).finish(&query);
        let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(rows.len())).chain([0, rows.len()]).collect();
        cuts.sort_unstable();
        let mut parts: Vec<_> = cuts.windows(2).map(|w| fold(&query, rows[w[0]..w[1]].iter().copied())).collect();
        // Any order, and through the wire.
        let (len, by) = (parts.len().max(1), order as usize);
        parts.rotate_left(by % len);
        let mut merged = Partial::new();
        for part in parts {
            let part = Partial::decode(&part.encode(&query).unwrap(), &query).unwrap();
            merged.merge(part, &query).unwrap();
        }
        prop_assert_eq!(merged.finish(&query), whole);
    }
}

#[test]
fn a_million_random_decimals_agree_with_an_independent_sum() {
    // xorshift: the same numbers in every run.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let query = query("count,sum,avg,min,max,stddev", "text", "", "");
    let mut fold = Fold::new(&query);
    let (mut sum, mut squares) = (0_i128, 0_i128);
    let (mut min, mut max) = (i128::MAX, i128::MIN);
    for _ in 0..1_000_000 {
        // Cents, so that the model fits into plain integers.
        let cents = i128::from(next() % 2_000_000_000) - 1_000_000_000;
        let sign = if cents < 0 { "-" } else { "" };
        let text = format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100);
        fold.add(b"k", text.as_bytes()).unwrap();
        (sum, squares) = (sum + cents, squares + cents * cents);
        (min, max) = (min.min(cents), max.max(cents));
    }
    let answer = fold.finish().finish(&query);
    let figure = |i: usize| match &answer.groups[0].figures[i].1 {
        Figure::Number(digits) => digits.parse::<f64>().unwrap(),
        other => panic!("{other:?}"),
    };
    let n = 1_000_000.0;
    let exact = |cents: i128| cents as f64 / 100.0;
    assert_eq!(answer.rows, 1_000_000);
    assert_eq!((figure(1), figure(3), figure(4)), (exact(sum), exact(min), exact(max)));
    assert!((figure(2) - exact(sum) / n).abs() < 1e-9);
    let variance = (squares as f64 - (sum as f64) * (sum as f64) / n) / (n - 1.0) / 1e4;
    assert!((figure(5) / variance.sqrt() - 1.0).abs() < 1e-9);
}

#[test]
fn texts_that_are_too_long_are_refused_before_they_are_gone_through() {
    let good = QueryText { functions: "count".to_owned(), ..QueryText::default() };
    let quantiles: Vec<_> =
        (0..250_000).map(|n| format!("p{}.{:04}", n / 10_000, n % 10_000)).collect();
    let path = "a.".repeat(4_000);
    for (what, bad) in [
        ("functions", QueryText { functions: quantiles.join(","), ..good.clone() }),
        ("65 functions", QueryText { functions: quantiles[..65].join(","), ..good.clone() }),
        ("a function", QueryText { functions: "x".repeat(4_000), ..good.clone() }),
        ("value", QueryText { value: format!("json:{path}a"), ..good.clone() }),
        ("an unknown value", QueryText { value: "v".repeat(4_000), ..good.clone() }),
        ("group_by", QueryText { group_by: format!("json:{path}a"), ..good.clone() }),
        ("a separator", QueryText { group_by: format!("split:{path}:1"), ..good.clone() }),
        ("steps", QueryText { group_by: format!("json:{}a", &path[..400]), ..good.clone() }),
        ("filter", QueryText { filter: "not ".repeat(100_000), ..good.clone() }),
        ("a word", QueryText { filter: "w".repeat(16_000), ..good.clone() }),
        ("a text", QueryText { filter: format!("'{}", "w".repeat(16_000)), ..good.clone() }),
        ("comparisons", QueryText { filter: "0=1 or ".repeat(600) + "0=1", ..good.clone() }),
    ] {
        let begun = Instant::now();
        let refused = Query::parse(&bad).map(|_| ()).unwrap_err().to_string();
        assert!(begun.elapsed() < Duration::from_millis(200), "{what}: {:?}", begun.elapsed());
        // It travels in a header of the answer.
        assert!(refused.len() < 600, "{what}: {} bytes", refused.len());
    }
}

/// An object of about 200 KB whose fields are texts that need unescaping.
fn large_document() -> String {
    let field = |n: u32| format!("\"f{n}\":\"{}\"", "\\n.".repeat(200));
    format!("{{{}}}", (0..300).map(field).collect::<Vec<_>>().join(","))
}

#[test]
fn a_condition_of_hundreds_of_paths_parses_a_document_once() {
    let document = large_document();
    let time = |condition: &str| {
        let query = query("count,distinct", "json:f7", condition, "json:f8");
        let begun = Instant::now();
        let partial = fold(&query, [("k", &document[..]); 3]);
        assert_eq!(partial.rows(), 0);
        begun.elapsed()
    };
    let one = time("json:f299 = 1").max(time("json:f299 = 1"));
    let all: Vec<_> = (0..300).map(|n| format!("json:f{n} = 'no'")).collect();
    let all = time(&all.join(" or "));
    let same: Vec<_> = (0..300).map(|n| format!("json:f1 = '{n}'")).collect();
    let same = time(&same.join(" or "));
    assert!(
        all < one * 30 && same < one * 30,
        "1 path {one:?}, 300 {all:?}, 300 times one {same:?}"
    );
}
