//! A hot range is cut where its heat divides, a large one in the middle.

use crate::memory::{heat, heat_max};
use crate::pass::Pass;
use crate::{Action, KeySample, RangeView, Rule};
use isotherm_types::{Key, KeyRange};

/// A range is hot if it costs more than the limit over a second, and over ten more than this share
/// of it: a third is what lasting heat of twice the limit reaches after two seconds, and a burst of
/// half a second never.
const LASTING: f64 = 1.0 / 3.0;
/// What came out of a cut is cut again after this share of the settle time at the earliest.
const SETTLE_AFTER_CUT: f64 = 0.5;
/// Each side of a cut carries at least this share of the heat.
const SIDE_MIN: f64 = 0.25;
/// Above this share one key carries a range.
const ONE_KEY: f64 = 0.5;
/// Above this share of new highest keys among writes, and of writes among the cost, a range grows at
/// its end.
const GROWS: f64 = 0.5;
/// What a write costs in reads.
const WRITE_COST: f64 = 3.0;
/// Fewer sampled keys say nothing about where heat lies.
const SAMPLE_MIN: usize = 12;
/// A range that costs up to this multiple of what each node should carry is placed as it is: what a
/// group costs is its log entries, and the fewer operations share one, the more an operation costs.
const PIECE_SHARE: f64 = 1.25;
/// Unless its node is too full and it is what keeps it full: then from this share on.
const PIECE_SHARE_ON_FULL: f64 = 0.5;
/// Most pieces of one cut.
const PIECES_MAX: usize = 8;

/// What is to be done with a range that is hot or large.
enum Verdict {
    Cut { keys: Vec<Key>, reason: String, is_end: bool },
    Not(String),
}

/// Cuts what is hot or large.
pub(crate) fn split(pass: &mut Pass<'_>) {
    for range in &pass.view.ranges {
        let is_hot = heat_max(range) > pass.hot_from(range);
        let is_large = range.size_bytes > pass.settings.split_bytes;
        if !is_hot && !is_large {
            continue;
        }
        let id = range.descriptor.id;
        // A move of a range that turned hot is given up for the cut.
        let is_moving = pass.view.moves.iter().any(|m| m.range == id);
        match judge(pass, range) {
            Verdict::Cut { .. } if is_moving && pass.memory.booked(id).is_none() => {
                let why = "it turned hot: the move would carry more than the cut leaves of it";
                pass.act(Rule::Split, Action::CancelMove { range: id }, why.to_owned());
            }
            Verdict::Cut { keys, reason, is_end } => match pass.busy(range) {
                Some(why) => pass.decline(Rule::Split, id, format!("{reason}; but {why}")),
                None => {
                    if is_end && let Some(end) = keys.last() {
                        pass.memory.note_end(end.clone());
                    }
                    pass.act(Rule::Split, Action::Split { range: id, keys }, reason);
                }
            },
            Verdict::Not(why) => pass.decline(Rule::Split, id, why),
        }
    }
}

/// Why a range is not cut, if it is neither hot nor large or for another reason.
pub(crate) fn why_not_split(pass: &Pass<'_>, range: &RangeView) -> String {
    match judge(pass, range) {
        Verdict::Cut { reason, .. } => match pass.busy(range) {
            Some(why) => format!("it should be cut ({reason}), but {why}"),
            None => format!("it is about to be cut: {reason}"),
        },
        Verdict::Not(why) => why,
    }
}

fn judge(pass: &Pass<'_>, range: &RangeView) -> Verdict {
    let (fast, slow) = (range.load.fast.cores, range.load.slow.cores);
    let hot = pass.hot_from(range);
    let is_hot = fast > hot && slow > hot * LASTING;
    let is_large = range.size_bytes > pass.settings.split_bytes;
    let (size, limit) = (range.size_bytes >> 20, pass.settings.split_bytes >> 20);
    if !is_hot && !is_large {
        return Verdict::Not(if fast > hot {
            format!(
                "{fast:.2} cores of {hot:.2}: hot just now, but only {slow:.2} over ten seconds"
            )
        } else {
            format!(
                "{fast:.2} cores over a second and {slow:.2} over ten: not hot, which begins at \
                 {hot:.2}; {size} MiB of {limit} MiB: not large"
            )
        });
    }
    if !range.may_split {
        return Verdict::Not(
            "not all of its live replicas have applied the last cut yet: it waits for them"
                .to_owned(),
        );
    }
    let patience = (pass.settings.settle_ms as f64 * SETTLE_AFTER_CUT) as u64;
    if let Some(why) = pass.settling(range, patience) {
        return Verdict::Not(why);
    }
    if is_hot {
        match judge_hot(pass, range, hot) {
            Verdict::Not(_) if is_large => {}
            verdict => return verdict,
        }
    }
    let middle = range.middle.clone().filter(|key| is_inside(&range.descriptor.span, key));
    match middle {
        Some(key) => Verdict::Cut {
            keys: vec![key],
            reason: format!("{size} MiB of {limit} MiB: it is large"),
            is_end: false,
        },
        None => Verdict::Not(format!(
            "{size} MiB of {limit} MiB: it is large, but its leader has not said yet where its \
             middle is"
        )),
    }
}

fn judge_hot(pass: &Pass<'_>, range: &RangeView, hot: f64) -> Verdict {
    let fast = range.load.fast.cores;
    let is_hot = format!("{fast:.2} cores of {hot:.2}: it is hot");
    let cost = heat(range);
    let nodes = pass.serving().count().max(1);
    let all: f64 = pass.serving().map(|(_, book)| book.cores).sum();
    let share = all / nodes as f64;
    let leads = range.leader.and_then(|node| pass.books.get(&node));
    // While replicas move and what they cost settles, transfers may still do.
    let is_spread =
        pass.view.moves.is_empty() && pass.settling(range, pass.settings.settle_ms * 5).is_none();
    let is_full = is_spread
        && leads.is_some_and(|book| {
            book.use_share() > super::mean_use(pass) * (1.0 + 2.0 * pass.settings.tolerance)
        });
    let piece = share * if is_full { PIECE_SHARE_ON_FULL } else { PIECE_SHARE };
    if nodes > 1 && cost < piece {
        return Verdict::Not(format!(
            "{is_hot}, but of the {share:.2} cores that each node should carry it is {:.0} %: it can \
             be placed as it is",
            cost / share * 100.0
        ));
    }
    let sample = merged(&range.load.sample);
    let all: f64 = sample.iter().map(|s| s.weight).sum();
    if range.load.sample.len() < SAMPLE_MIN || all <= 0.0 {
        return Verdict::Not(format!(
            "{is_hot}, but only {} keys of it were seen: it waits for more",
            range.load.sample.len()
        ));
    }
    let span = &range.descriptor.span;
    if let Some(key) = sample.iter().find(|s| s.weight > all * ONE_KEY) {
        return isolate(span, key, key.weight / all, &is_hot);
    }
    let rates = &range.load.fast;
    let writes_share =
        rates.writes * WRITE_COST / (rates.writes * WRITE_COST + rates.reads).max(1e-9);
    if rates.appends > rates.writes * GROWS && writes_share > GROWS {
        return cut_end(pass, range, &sample, &is_hot);
    }
    let pieces = ((cost / share.max(1e-9)).round() as usize).clamp(2, PIECES_MAX);
    for pieces in (2..=pieces).rev() {
        if let Some((keys, largest)) = cuts(span, &sample, all, pieces) {
            let share = largest * 100.0;
            let reason = format!(
                "{is_hot}; cut into {} pieces, of which the hottest carries {share:.0} %",
                keys.len() + 1
            );
            return Verdict::Cut { keys, reason, is_end: false };
        }
    }
    let hottest = sample.iter().max_by(|a, b| a.weight.total_cmp(&b.weight));
    let (key, share) = hottest.map_or((String::new(), 0.0), |s| (shown(&s.key), s.weight / all));
    Verdict::Not(format!(
        "{is_hot}, but no key divides its heat so that each side carries {:.0} %; its hottest key \
         {key} carries {:.0} %",
        SIDE_MIN * 100.0,
        share * 100.0
    ))
}

/// One key carries the range: it becomes a range of its own, which cannot be cut any further.
fn isolate(span: &KeyRange, key: &KeySample, share: f64, is_hot: &str) -> Verdict {
    let (text, share) = (shown(&key.key), share * 100.0);
    let point = KeyRange::point(&key.key);
    let edges = [point.start().clone(), point.end().clone()];
    let keys: Vec<Key> = edges.into_iter().filter(|key| is_inside(span, key)).collect();
    if keys.is_empty() {
        return Verdict::Not(format!(
            "{is_hot}, but one key carries {share:.0} % of it, {text}, and has the range to itself: \
             there is nothing to cut"
        ));
    }
    let reason =
        format!("{is_hot}, and one key carries {share:.0} % of it: {text} gets a range of its own");
    Verdict::Cut { keys, reason, is_end: false }
}

/// A range that grows at its end: the end becomes a range of its own, once. Wherever it is cut, all
/// new keys go to the last piece.
fn cut_end(pass: &Pass<'_>, range: &RangeView, sample: &[KeySample], is_hot: &str) -> Verdict {
    let span = &range.descriptor.span;
    if pass.memory.is_end(span.start()) {
        return Verdict::Not(format!(
            "{is_hot}, and it is the growing end of what was written in order: wherever it is cut, \
             all new keys go to the last piece"
        ));
    }
    let last = sample.last().map(|s| s.key.clone()).filter(|key| is_inside(span, key));
    match last {
        Some(key) => Verdict::Cut {
            keys: vec![key],
            reason: format!(
                "{is_hot}, and it grows at its end: the end becomes a range of its own"
            ),
            is_end: true,
        },
        None => Verdict::Not(format!("{is_hot} and grows at its end, which begins where it does")),
    }
}

fn shown(key: &Key) -> String {
    key.escape_ascii().to_string()
}

fn is_inside(span: &KeyRange, key: &Key) -> bool {
    span.contains(key) && key != span.start()
}

/// The sample by key, each key once.
fn merged(sample: &[KeySample]) -> Vec<KeySample> {
    let mut sorted = sample.to_vec();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    sorted.dedup_by(|next, kept| {
        let is_same = next.key == kept.key;
        if is_same {
            kept.weight += next.weight;
        }
        is_same
    });
    sorted
}

/// Keys that cut a sample into so many pieces of about the same weight, and the share of the
/// heaviest; none if a side of two would carry too little, or a piece of several too much.
fn cuts(span: &KeyRange, sample: &[KeySample], all: f64, pieces: usize) -> Option<(Vec<Key>, f64)> {
    let mut keys: Vec<Key> = Vec::new();
    let mut before = 0.0;
    for s in sample {
        // Everything up to and without this key.
        let goal = all * (keys.len() + 1) as f64 / pieces as f64;
        let (low, high) = ((goal - before).abs(), (before + s.weight - goal).abs());
        if keys.len() + 1 < pieces && before > 0.0 && low <= high && is_inside(span, &s.key) {
            keys.push(s.key.clone());
        }
        before += s.weight;
    }
    if keys.is_empty() {
        return None;
    }
    let mut shares = vec![0.0; keys.len() + 1];
    for s in sample {
        shares[keys.partition_point(|key| *key <= s.key)] += s.weight / all;
    }
    let largest = shares.iter().copied().fold(0.0, f64::max);
    (largest <= 1.0 - SIDE_MIN).then_some((keys, largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(weights: &[f64]) -> Vec<KeySample> {
        let key = |n: usize| Key::from(format!("k{n:03}"));
        weights.iter().enumerate().map(|(n, w)| KeySample { key: key(n), weight: *w }).collect()
    }

    #[test]
    fn even_heat_is_cut_evenly() {
        let even = sample(&[1.0; 90]);
        let (keys, largest) = cuts(&KeyRange::all(), &even, 90.0, 3).expect("it divides");
        assert_eq!(keys, [Key::from("k030"), Key::from("k060")]);
        assert!((largest - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_heavy_key_stays_on_the_side_that_needs_it() {
        let heavy = sample(&[1.0, 1.0, 4.0, 1.0, 1.0]);
        let (keys, largest) = cuts(&KeyRange::all(), &heavy, 8.0, 2).expect("it divides");
        assert_eq!(keys.len(), 1);
        assert!(largest <= 0.75, "{largest}");
        let lone = sample(&[1.0, 7.0]);
        assert_eq!(cuts(&KeyRange::all(), &lone, 8.0, 2), None);
    }
}
