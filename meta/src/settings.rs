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

/// One setting.
struct Definition {
    name: &'static str,
    default: &'static str,
    help: &'static str,
    /// What is wrong with a value.
    check: fn(&str) -> Result<(), String>,
}

const DEFINITIONS: [Definition; 4] = [
    Definition {
        name: "history.retention",
        default: "10m",
        help: "How long older versions stay readable (10s to 30d).",
        check: |value| duration(value, Duration::from_secs(10), Duration::from_secs(30 * 86_400)),
    },
    Definition {
        name: "read.confirm",
        default: "lease",
        help: "How a leader confirms that it leads before a read: `lease` trusts that monotonic \
               clocks drift by less than 20 %, `quorum` asks a quorum each time.",
        check: |value| one_of(value, &["lease", "quorum"]),
    },
    Definition {
        name: "replica.dead_after",
        default: "5m",
        help: "How long a node may be silent before its replicas count as lost (10s to 7d).",
        check: |value| duration(value, Duration::from_secs(10), Duration::from_secs(7 * 86_400)),
    },
    Definition {
        name: REPLICA_COUNT,
        default: "3",
        help: "Replicas of each range, as the cluster was founded. Read-only.",
        check: |_| Err("it was fixed when the cluster was founded".to_owned()),
    },
];

fn duration(value: &str, min: Duration, max: Duration) -> Result<(), String> {
    let parsed = humantime::parse_duration(value)
        .map_err(|e| format!("{value:?} is not a duration such as 90s, 10m or 2h: {e}"))?;
    if parsed < min || parsed > max {
        let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
        return Err(format!("{value} is not between {min} and {max}"));
    }
    Ok(())
}

fn one_of(value: &str, known: &[&str]) -> Result<(), String> {
    if known.contains(&value) {
        return Ok(());
    }
    Err(format!("{value:?} is none of {}", known.join(", ")))
}

/// Refuses a name that does not exist and a value that makes no sense.
pub fn check(name: &str, value: &str) -> Result<(), WireError> {
    let invalid = |why| WireError::new(pb::error::Code::Invalid, why);
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
        let error = check("history.retentoin", "1h").unwrap_err();
        assert_eq!(error.code(), pb::error::Code::Invalid);
        assert!(error.to_string().contains("history.retention"));
    }

    #[test]
    fn bad_values_are_refused_and_good_ones_taken() {
        assert!(check("history.retention", "1h").is_ok());
        for bad in ["", "1", "1s", "99d", "soon"] {
            assert!(check("history.retention", bad).is_err(), "{bad}");
        }
        assert!(check("read.confirm", "quorum").is_ok());
        assert!(check("read.confirm", "hope").is_err());
        assert!(check(REPLICA_COUNT, "3").is_err());
    }

    #[test]
    fn every_default_is_a_value_that_would_be_taken() {
        for d in DEFINITIONS.iter().filter(|d| d.name != REPLICA_COUNT) {
            assert!((d.check)(d.default).is_ok(), "{}", d.name);
        }
    }
}
