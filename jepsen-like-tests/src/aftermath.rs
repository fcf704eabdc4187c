//! What must hold of a healed cluster, whatever the workload was: every move has ended and left
//! nobody half a member, its map tiles the key space, every range takes writes, and the replicas of every range are equal.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use isotherm_client::{Client, OperationStatus, RangeLocation, ReplicaChecksum};
use isotherm_types::{Key, KeyRange, RangeDescriptor, RangeId};
use tokio::time::sleep;

/// Ranges that are looked at side by side.
const CONCURRENCY: usize = 8;
/// Pause between attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Looks at everything; an error says what does not hold at `deadline` either.
pub async fn check(client: &Client, deadline: Instant) -> Result<(), String> {
    leave_alone(client, deadline).await?;
    settle_moves(client, deadline).await?;
    let ranges = list(client, deadline).await?;
    let descriptors: Vec<&RangeDescriptor> = ranges.iter().map(|r| &r.descriptor).collect();
    check_tiling(&descriptors)?;
    for_each(&ranges, |range| probe(client, range, deadline)).await?;
    for_each(&ranges, |range| compare(client, range.descriptor.id, deadline)).await
}

/// Takes back what was wanted of nodes, and has the cluster decide nothing by itself: what is looked
/// at would change under the eyes of who looks.
async fn leave_alone(client: &Client, deadline: Instant) -> Result<(), String> {
    loop {
        match quiet(client).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(format!("the cluster cannot be left alone: {error}"));
            }
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}

async fn quiet(client: &Client) -> Result<(), isotherm_client::ClientError> {
    let admin = client.admin();
    for node in admin.nodes().await? {
        if node.intent == "draining" || node.intent == "decommissioning" {
            admin.set_intent(node.id, "active").await?;
        }
    }
    admin.set_setting("scheduler.enabled", "false").await
}

/// Waits until every operation has ended: done, or failed for a reason that another change of the
/// range explains. None may take its whole limit on a healed cluster.
async fn settle_moves(client: &Client, deadline: Instant) -> Result<(), String> {
    loop {
        let why = match client.admin().operations().await {
            Ok(all) => {
                let running = all.iter().find(|o| o.status() == OperationStatus::Running);
                match running.map(|o| format!("operation {} is {}: {}", o.id, o.state, o.step)) {
                    Some(why) => why,
                    None => match unsettled(client).await {
                        None => return Ok(()),
                        Some(why) => why,
                    },
                }
            }
            Err(error) => format!("operations cannot be listed: {error}"),
        };
        if Instant::now() >= deadline {
            return Err(why);
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// A range that has a learner or two sets of voters though nobody moves it, or nodes that hold more
/// or fewer replicas than the map says: one that was removed and is still there.
async fn unsettled(client: &Client) -> Option<String> {
    let (Ok(ranges), Ok(nodes)) =
        (client.admin().ranges(&KeyRange::all()).await, client.admin().nodes().await)
    else {
        return Some("the map cannot be read".to_owned());
    };
    if let Some(range) = ranges.iter().find(|r| !r.descriptor.is_settled()) {
        return Some(format!("a change of members was left behind: {:?}", range.descriptor));
    }
    nodes.iter().find_map(|node| {
        let named = ranges.iter().filter(|r| r.descriptor.replica_on(node.id).is_some()).count();
        let differs = named as u64 != node.replicas;
        differs.then(|| format!("{} holds {} replicas, not {named}", node.id, node.replicas))
    })
}

/// Checks that ranges in key order cover the key space without a hole and without an overlap.
pub fn check_tiling(ranges: &[&RangeDescriptor]) -> Result<(), String> {
    let mut reached = Some(Key::new());
    for range in ranges {
        let (start, end) = (range.span.start(), range.span.end());
        match &reached {
            Some(reached) if reached == start => {}
            Some(reached) => {
                return Err(format!("{} begins at {start:?} instead of {reached:?}", range.id));
            }
            None => return Err(format!("{} begins behind the end of the key space", range.id)),
        }
        reached = (!end.is_empty()).then(|| end.clone());
    }
    match reached {
        None => Ok(()),
        Some(reached) => Err(format!("no range covers the keys from {reached:?} on")),
    }
}

/// Compares the sums of the replicas of a range. `Ok(false)`: some are not known yet.
fn equal(range: RangeId, sums: &[ReplicaChecksum]) -> Result<bool, String> {
    let known: Vec<(u64, u64)> =
        sums.iter().filter_map(|s| Some((*s.checksum.as_ref().ok()?, s.rows))).collect();
    if known.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(format!("the replicas of {range} differ: {sums:?}"));
    }
    Ok(!known.is_empty() && known.len() == sums.len())
}

async fn for_each<'a, F>(
    ranges: &'a [RangeLocation],
    look: impl Fn(&'a RangeLocation) -> F,
) -> Result<(), String>
where
    F: Future<Output = Result<(), String>>,
{
    let mut looks = stream::iter(ranges.iter().map(look)).buffer_unordered(CONCURRENCY);
    while let Some(result) = looks.next().await {
        result?;
    }
    Ok(())
}

async fn list(client: &Client, deadline: Instant) -> Result<Vec<RangeLocation>, String> {
    loop {
        match client.admin().ranges(&KeyRange::all()).await {
            Ok(ranges) => return Ok(ranges),
            Err(error) if Instant::now() >= deadline => {
                return Err(format!("the map cannot be read: {error}"));
            }
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}

/// Writes the first key of the range, which no workload uses.
async fn probe(client: &Client, range: &RangeLocation, deadline: Instant) -> Result<(), String> {
    let start = range.descriptor.span.start();
    let key = if start.is_empty() { Key::from_static(&[0]) } else { start.clone() };
    loop {
        match client.put(key.clone(), "probe").await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(format!("{} takes no writes: {error}", range.descriptor.id));
            }
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}

async fn compare(client: &Client, range: RangeId, deadline: Instant) -> Result<(), String> {
    loop {
        let why = match client.admin().checksum(range).await {
            Ok(sums) if equal(range, &sums)? => return Ok(()),
            Ok(sums) => format!("{sums:?}"),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(format!("the replicas of {range} cannot be compared: {why}"));
        }
        sleep(RETRY_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use isotherm_types::{NodeId, ReplicaId};

    fn range(id: u64, start: &str, end: &str) -> RangeDescriptor {
        let span = KeyRange::new(start.to_owned(), end.to_owned()).unwrap();
        RangeDescriptor::first(RangeId(id), span, &[NodeId(1)])
    }

    fn tiles(ranges: &[RangeDescriptor]) -> Result<(), String> {
        check_tiling(&ranges.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_map_with_a_hole_an_overlap_or_an_end_is_rejected() {
        assert_eq!(tiles(&[range(1, "", "f"), range(2, "f", "p"), range(3, "p", "")]), Ok(()));
        assert_eq!(tiles(&[range(1, "", "")]), Ok(()));
        assert!(tiles(&[]).is_err(), "nothing");
        assert!(tiles(&[range(1, "", "f"), range(2, "g", "")]).is_err(), "hole");
        assert!(tiles(&[range(1, "", "f"), range(2, "e", "")]).is_err(), "overlap");
        assert!(tiles(&[range(1, "", "f"), range(2, "f", "p")]).is_err(), "no end");
        assert!(tiles(&[range(1, "a", "")]).is_err(), "no beginning");
        assert!(tiles(&[range(1, "", ""), range(2, "p", "")]).is_err(), "two ends");
    }

    fn sum(checksum: Result<u64, String>, rows: u64) -> ReplicaChecksum {
        let (node, replica) = (NodeId(1), ReplicaId(1));
        ReplicaChecksum { node, replica, applied_index: 7, checksum, rows }
    }

    #[test]
    fn replicas_that_differ_are_rejected_and_unknown_ones_do_not_pass() {
        let id = RangeId(1);
        let unknown = || Err("not yet".to_owned());
        assert_eq!(equal(id, &[sum(Ok(1), 2), sum(Ok(1), 2)]), Ok(true));
        assert!(equal(id, &[sum(Ok(1), 2), sum(Ok(9), 2)]).is_err());
        assert!(equal(id, &[sum(Ok(1), 2), sum(unknown(), 0), sum(Ok(1), 3)]).is_err());
        assert_eq!(equal(id, &[sum(Ok(1), 2), sum(unknown(), 0)]), Ok(false));
        assert_eq!(equal(id, &[]), Ok(false));
    }
}
