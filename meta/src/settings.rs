//! The settings of a cluster: names, defaults, what values are accepted.
//!
//! The machine stores only what was changed; a default that a later release changes therefore
//! applies to clusters that never touched the setting.

use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use std::collections::BTreeMap;

/// Set when the cluster is founded; shown, not changed.
pub const REPLICA_COUNT: &str = "replica.count";

/// How reads are confirmed; every node follows it.
const READ_CONFIRM: &str = "read.confirm";

/// One setting.
struct Definition {
    name: &'static str,
    default: &'static str,
    help: &'static str,
    /// What is wrong with a value.
    check: fn(&str) -> Result<(), String>,
}

const DEFINITIONS: [Definition; 2] = [
    Definition {
        name: READ_CONFIRM,
        default: "lease",
        help: "How a leader confirms that it leads before a read: `lease` trusts that monotonic \
               clocks drift by less than 20 %, `quorum` asks a quorum each time.",
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
        let error = check("read.confrim", "lease").unwrap_err();
        assert_eq!(error.code(), pb::error::Code::Invalid);
        assert!(error.to_string().contains("read.confirm"));
    }

    #[test]
    fn bad_values_are_refused_and_good_ones_taken() {
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
