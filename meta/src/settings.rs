//! The settings of a cluster: names, defaults, what values are accepted.
//!
//! The machine stores only what was changed; a default that a later release changes therefore
//! applies to clusters that never touched the setting.

use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use std::collections::BTreeMap;
use std::time::Duration;

/// Set when the cluster is founded; shown, not changed.
pub const REPLICA_COUNT: &str = "replica.count";

/// How reads are confirmed; every node follows it.
const READ_CONFIRM: &str = "read.confirm";

/// How long older versions are kept.
pub const HISTORY_RETENTION: &str = "history.retention";
const RETENTION_DEFAULT: &str = "10m";
/// Scans that are not registered yet rely on the shortest one.
const RETENTION_MIN: Duration = Duration::from_secs(1);
const RETENTION_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// When idle ranges sleep; every node follows it.
const HIBERNATE_AFTER: &str = "range.hibernate_after";
const HIBERNATE_MIN: Duration = Duration::from_millis(50);
const HIBERNATE_MAX: Duration = Duration::from_secs(60 * 60);

/// Bytes of a name or a value: every heartbeat carries all of them.
const TEXT_MAX: usize = isotherm_types::limits::SETTING_BYTES_MAX;

/// One setting.
struct Definition {
    name: &'static str,
    default: &'static str,
    help: &'static str,
    /// What is wrong with a value.
    check: fn(&str) -> Result<(), String>,
}

/// What the scheduler goes by.
const SCHEDULER_ENABLED: &str = "scheduler.enabled";
const SPLIT_HOT_CORES: &str = "split.hot_cores";
const SPLIT_SIZE: &str = "split.size";
const MERGE_COLD_CORES: &str = "merge.cold_cores";
const MERGE_AFTER: &str = "merge.after";
const MERGE_SIZE: &str = "merge.size";
const DEAD_AFTER: &str = "replica.dead_after";
const TOLERANCE: &str = "balance.tolerance";

const DEFINITIONS: [Definition; 12] = [
    Definition {
        name: TOLERANCE,
        default: "0.1",
        help: "How far the load of a node may be from the mean before something moves, as a share \
               of the mean; from 0.02 to 1.",
        check: |value| number(value, 0.02, 1.0).map(drop),
    },
    Definition {
        name: HISTORY_RETENTION,
        default: RETENTION_DEFAULT,
        help: "How long overwritten and deleted values can still be read at their time, such as \
               `10m` or `1h 30m`; from 1s to 30d. Reads that take longer hold them themselves.",
        check: |value| parse_retention(value).map(drop),
    },
    Definition {
        name: MERGE_AFTER,
        default: "5m",
        help: "How long two neighbours must have been cold before they become one; from 1s to 30d.",
        check: |value| duration(value).map(drop),
    },
    Definition {
        name: MERGE_COLD_CORES,
        default: "0.01",
        help: "A range that costs its leader less than this many cores is cold; from 0 to 1. With 0 \
               nothing is merged.",
        check: |value| number(value, 0.0, 1.0).map(drop),
    },
    Definition {
        name: MERGE_SIZE,
        default: "64MiB",
        help: "Cold neighbours that would be larger than this together stay two.",
        check: |value| size(value).map(drop),
    },
    Definition {
        name: DEAD_AFTER,
        default: "5m",
        help: "A node that was silent this long is given up: its replicas are built again on other \
               nodes; from 1s to 30d.",
        check: |value| duration(value).map(drop),
    },
    Definition {
        name: SCHEDULER_ENABLED,
        default: "true",
        help: "Whether ranges split, merge and move by themselves: `true` or `false`. Moves that were \
               ordered by hand are carried out in any case.",
        check: |value| one_of(value, &["true", "false"]),
    },
    Definition {
        name: SPLIT_HOT_CORES,
        default: "0.25",
        help: "A range that costs its leader more than this many cores is hot (more than that share \
               of what the node may use, if that is less than one core); from 0.001 to 64.",
        check: |value| number(value, 0.001, 64.0).map(drop),
    },
    Definition {
        name: SPLIT_SIZE,
        default: "256MiB",
        help: "A range that is larger on disk is cut in two; at least 1MiB.",
        check: |value| size(value).map(drop),
    },
    Definition {
        name: HIBERNATE_AFTER,
        default: "5s",
        help: "Ranges that nobody used for this long sleep and cost nothing until somebody does, who \
               then waits for one more round of a quorum; from 50ms to 1h, or `off`.",
        check: check_hibernation,
    },
    Definition {
        name: READ_CONFIRM,
        default: "lease",
        help: "How a leader confirms that it leads before a read: `lease` trusts that monotonic \
               clocks drift by less than 20 % and are not stopped with the machine, `quorum` asks a \
               quorum each time: for virtual machines that their host pauses.",
        check: |value| one_of(value, &["lease", "quorum"]),
    },
    Definition {
        name: REPLICA_COUNT,
        default: "3",
        help: "Replicas of each range, as the cluster was founded. Read-only.",
        check: |_| Err("it was fixed when the cluster was founded".to_owned()),
    },
];

fn one_of(value: &str, known: &[&str]) -> Result<(), String> {
    if known.contains(&value) {
        return Ok(());
    }
    Err(format!("{value:?} is none of {}", known.join(", ")))
}

fn check_hibernation(value: &str) -> Result<(), String> {
    if value == "off" {
        return Ok(());
    }
    let parsed = humantime::parse_duration(value)
        .map_err(|e| format!("{value:?} is neither `off` nor a duration such as 5s: {e}"))?;
    if (HIBERNATE_MIN..=HIBERNATE_MAX).contains(&parsed) {
        return Ok(());
    }
    Err(format!("{value:?} is not between 50ms and 1h"))
}

fn parse_retention(value: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(value)
        .map_err(|e| format!("{value:?} is not a duration such as 10m: {e}"))?;
    if (RETENTION_MIN..=RETENTION_MAX).contains(&parsed) {
        return Ok(parsed);
    }
    let bounds = [RETENTION_MIN, RETENTION_MAX].map(humantime::format_duration);
    Err(format!("{value:?} is not between {} and {}", bounds[0], bounds[1]))
}

fn number(value: &str, least: f64, most: f64) -> Result<f64, String> {
    let parsed: f64 = value.parse().map_err(|_| format!("{value:?} is not a number"))?;
    if (least..=most).contains(&parsed) {
        return Ok(parsed);
    }
    Err(format!("{value:?} is not between {least} and {most}"))
}

fn duration(value: &str) -> Result<Duration, String> {
    parse_retention(value)
}

fn size(value: &str) -> Result<u64, String> {
    let units = [("KiB", 1_u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let split = units.iter().find_map(|(name, unit)| value.strip_suffix(name).map(|n| (n, unit)));
    let bytes = split.and_then(|(n, unit)| n.trim().parse::<u64>().ok()?.checked_mul(*unit));
    match bytes {
        Some(bytes) if bytes >= 1 << 20 => Ok(bytes),
        Some(_) => Err(format!("{value:?} is less than 1MiB")),
        None => Err(format!("{value:?} is not a size such as 256MiB or 1GiB")),
    }
}

/// What the scheduler goes by; `first_ranges` is how many ranges the cluster began with.
pub fn scheduler(
    changed: &BTreeMap<String, String>,
    first_ranges: usize,
) -> isotherm_scheduler::Settings {
    // A value that another release took and this one does not counts as the default.
    let default = isotherm_scheduler::Settings::default();
    let value = |name| changed.get(name).map(String::as_str);
    let cores = |name, most| value(name).and_then(|v| number(v, 0.0, most).ok());
    let millis = |name| {
        let parsed = value(name).and_then(|v| duration(v).ok());
        parsed.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    };
    let bytes = |name| value(name).and_then(|v| size(v).ok());
    isotherm_scheduler::Settings {
        enabled: value(SCHEDULER_ENABLED) != Some("false"),
        hot_cores: cores(SPLIT_HOT_CORES, 64.0).unwrap_or(default.hot_cores),
        split_bytes: bytes(SPLIT_SIZE).unwrap_or(default.split_bytes),
        cold_cores: cores(MERGE_COLD_CORES, 1.0).unwrap_or(default.cold_cores),
        merge_after_ms: millis(MERGE_AFTER).unwrap_or(default.merge_after_ms),
        merge_bytes: bytes(MERGE_SIZE).unwrap_or(default.merge_bytes),
        dead_after_ms: millis(DEAD_AFTER).unwrap_or(default.dead_after_ms),
        tolerance: cores(TOLERANCE, 1.0).unwrap_or(default.tolerance),
        ranges_min: first_ranges.max(1),
        ..default
    }
}

/// How long older versions are kept; `changed` holds the settings that are not at their default.
pub fn retention(changed: &BTreeMap<String, String>) -> Duration {
    let value = changed.get(HISTORY_RETENTION).map_or(RETENTION_DEFAULT, String::as_str);
    // One that another release took and this one does not: keep for longest.
    parse_retention(value).unwrap_or(RETENTION_MAX)
}

/// Refuses a name that does not exist and a value that makes no sense.
pub fn check(name: &str, value: &str) -> Result<(), WireError> {
    let invalid = |why| WireError::new(pb::error::Code::Invalid, why);
    if name.len().max(value.len()) > TEXT_MAX {
        let why = format!("a setting has at most {TEXT_MAX} bytes, in its name and in its value");
        return Err(invalid(why));
    }
    let Some(definition) = DEFINITIONS.iter().find(|d| d.name == name) else {
        let known: Vec<_> = DEFINITIONS.iter().map(|d| d.name).collect();
        let known = known.join(", ");
        return Err(invalid(format!("there is no setting {name:?}; there are: {known}")));
    };
    (definition.check)(value).map_err(|why| invalid(format!("setting {name}: {why}")))
}

/// Every setting with its value; `changed` holds those that are not at their default.
pub fn list(changed: &BTreeMap<String, String>, replicas: usize) -> Vec<pb::Setting> {
    let value = |d: &Definition| match changed.get(d.name) {
        _ if d.name == REPLICA_COUNT => replicas.to_string(),
        Some(value) => value.clone(),
        None => d.default.to_owned(),
    };
    let setting = |d: &Definition| pb::Setting {
        name: d.name.to_owned(),
        value: value(d),
        default_value: d.default.to_owned(),
        help: d.help.to_owned(),
    };
    DEFINITIONS.iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = check("read.confrim", "lease").unwrap_err();
        assert_eq!(error.code(), pb::error::Code::Invalid);
        assert!(error.to_string().contains("read.confirm"));
    }

    #[test]
    fn bad_values_are_refused_and_good_ones_taken() {
        let long = "1s ".repeat(1_000_000);
        assert!(check(HISTORY_RETENTION, &long).unwrap_err().to_string().len() < 200);
        assert!(check(&long, "1s").unwrap_err().to_string().len() < 200);
        assert!(check("read.confirm", "quorum").is_ok());
        assert!(check("read.confirm", "hope").is_err());
        assert!(check(REPLICA_COUNT, "3").is_err());
    }

    #[test]
    fn a_setting_has_so_many_bytes() {
        let refused = |name: String, value: String| check(&name, &value).unwrap_err().to_string();
        let retention = |bytes: usize| format!("{}90s", " ".repeat(bytes - 3));
        assert!(check(HISTORY_RETENTION, &retention(TEXT_MAX)).is_ok());
        let long = refused(HISTORY_RETENTION.to_owned(), retention(TEXT_MAX + 1));
        assert!(long.contains("at most 256 bytes"), "{long}");
        assert!(refused("n".repeat(TEXT_MAX), "1s".to_owned()).contains("there is no setting"));
        assert!(refused("n".repeat(TEXT_MAX + 1), "1s".to_owned()).contains("at most 256 bytes"));
    }

    #[test]
    fn the_retention_has_bounds() {
        for good in ["1s", "10m", "1h 30m", "30d"] {
            assert!(check(HISTORY_RETENTION, good).is_ok(), "{good}");
        }
        for bad in ["0s", "999ms", "31d", "soon", "10", "-1s", ""] {
            let error = check(HISTORY_RETENTION, bad).unwrap_err();
            assert_eq!(error.code(), pb::error::Code::Invalid, "{bad}");
        }
        let mut changed = BTreeMap::new();
        assert_eq!(retention(&changed), Duration::from_secs(600));
        changed.insert(HISTORY_RETENTION.to_owned(), "90s".to_owned());
        assert_eq!(retention(&changed), Duration::from_secs(90));
    }

    #[test]
    fn what_the_scheduler_goes_by_has_units() {
        for (name, good, bad) in [
            ("split.size", "1GiB", "1GB"),
            ("split.size", "300 MiB", "512KiB"),
            ("split.hot_cores", "0.5", "0"),
            ("merge.after", "30s", "soon"),
            ("scheduler.enabled", "false", "no"),
        ] {
            assert!(check(name, good).is_ok(), "{name} {good}");
            assert!(check(name, bad).is_err(), "{name} {bad}");
        }
        let all = DEFINITIONS.iter().map(|d| (d.name.to_owned(), d.default.to_owned()));
        let default = isotherm_scheduler::Settings { ranges_min: 4, ..Default::default() };
        assert_eq!(scheduler(&all.collect(), 4), default, "both name the same defaults");
        assert_eq!(scheduler(&BTreeMap::new(), 4), default);
    }

    #[test]
    fn hibernation_can_be_switched_off_and_has_bounds() {
        for good in ["off", "50ms", "5s", "1h"] {
            assert!(check(HIBERNATE_AFTER, good).is_ok(), "{good}");
        }
        for bad in ["0s", "10ms", "2h", "on", ""] {
            assert!(check(HIBERNATE_AFTER, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_default_is_a_value_that_would_be_taken() {
        for d in DEFINITIONS.iter().filter(|d| d.name != REPLICA_COUNT) {
            assert!((d.check)(d.default).is_ok(), "{}", d.name);
        }
    }
}
