//! Transfers inside a range, increments all over the key space, and totals at one moment.
//!
//! A transfer leaves every total as it is, and its amount is less than [`TALLY_UNIT`]; increments of
//! tallies are multiples of that. So one total says both: what is left after the division is of
//! transfers seen in part, the quotient is of the increments.

use isotherm_types::KeyRange;
use serde_json::json;

use super::client::{Answer, WorkloadClient};
use super::keys::spread;
use crate::history::Function;
use crate::target::Target;

/// What increments of tallies are multiples of. Wide, so that the parts of several torn transfers
/// do not make up for each other by chance.
pub(crate) const TALLY_UNIT: i64 = 1 << 20;
/// First bytes of a key that name its group. Tally number n shares them with the accounts of group
/// number n and with nothing else.
pub(crate) const SUM_GROUP_BYTES: usize = 2;
/// Largest multiple of one increment; eight million of them fit into 64 bits.
const MULTIPLE_MAX: i64 = 1 << 20;
/// Groups of accounts, more than there are ranges.
const GROUPS: u64 = 48;
/// Accounts of a group.
const ACCOUNTS: u64 = 3;
/// Tallies: enough for every range, few enough to meet.
const TALLIES: u64 = 64;

#[derive(Debug)]
pub(super) struct Sums;

impl Sums {
    pub(super) async fn step<T: Target>(&self, client: &mut WorkloadClient<T>) {
        if client.is_reader() {
            let span = span(client);
            let group_bytes = client.rng.bool().then_some(SUM_GROUP_BYTES);
            client.sum(&span, group_bytes).await;
        } else if client.rng.bool() {
            transfer(client).await;
        } else {
            increment(client).await;
        }
    }
}

/// Mostly everything; else what a group of accounts and its range hold, or some part in between.
fn span<T>(client: &mut WorkloadClient<T>) -> KeyRange {
    let group = client.rng.u64(0..GROUPS);
    match client.rng.u8(0..8) {
        0 => KeyRange::prefix(prefix(group).as_bytes()),
        1 => {
            let mut ends = [prefix(group), prefix(group + GROUPS / 3)];
            ends.sort();
            let [from, to] = ends;
            KeyRange::new(from, to).unwrap_or_else(|_| KeyRange::all())
        }
        _ => KeyRange::all(),
    }
}

async fn transfer<T: Target>(client: &mut WorkloadClient<T>) {
    let group = client.rng.u64(0..GROUPS);
    let number = client.rng.u64(0..ACCOUNTS);
    let from = account(group, number);
    let to = account(group, (number + client.rng.u64(1..ACCOUNTS)) % ACCOUNTS);
    let by = client.rng.i64(1..TALLY_UNIT);
    let target = client.target.clone();
    let work = async { target.transfer(&from, &to, by).await.map(|()| Answer::default()) };
    let moves = json!([["incr", from, -by], ["incr", to, by]]);
    client.perform(Function::Txn, prefix(group), moves, work).await;
}

async fn increment<T: Target>(client: &mut WorkloadClient<T>) {
    let key = spread("tally", client.rng.u64(0..TALLIES));
    let by = client.rng.i64(1..=MULTIPLE_MAX) * TALLY_UNIT;
    let target = client.target.clone();
    let work = async {
        let sum = target.incr(&key, by).await?;
        Ok(Answer { result: Some(json!(sum)), ..Answer::default() })
    };
    client.perform(Function::Incr, key.as_str(), json!(by), work).await;
}

/// The accounts of a group share their first two characters, and ranges begin and are split at two
/// characters only: so a transfer is always a batch on one range. Splits at other keys would tear
/// transfers without any fault of the store.
fn account(group: u64, number: u64) -> String {
    format!("{}-{number}", spread("account", group))
}

/// The first two characters of the keys of a group.
fn prefix(group: u64) -> String {
    spread("account", group).chars().take(SUM_GROUP_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_accounts_of_a_group_lie_between_two_neighbouring_split_keys() {
        let prefixes: BTreeSet<String> = (0..GROUPS).map(prefix).collect();
        assert_eq!(prefixes.len() as u64, GROUPS, "no two groups share a prefix");
        let tallies: BTreeSet<String> = (0..TALLIES).map(prefix).collect();
        assert_eq!(tallies.len() as u64, TALLIES, "no two tallies share a prefix");
        assert!((0..TALLIES).all(|n| spread("tally", n).starts_with(&prefix(n))));
        for group in 0..GROUPS {
            for number in 0..ACCOUNTS {
                let account = account(group, number);
                assert!(account.starts_with(&prefix(group)) && prefix(group).len() == 2);
                assert!(KeyRange::prefix(prefix(group).as_bytes()).contains(account.as_bytes()));
            }
        }
    }
}
