//! Splitting before the rows come, so that they meet several ranges from the first on.

use super::lines::{Columns, Line, read};
use crate::failure::{Failure, UNEXPECTED};
use crate::output;
use futures::StreamExt;
use isotherm_client::{Client, ClientError, NodeStatus};
use isotherm_types::{Key, KeyRange, NodeId, RangeId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Keys that are looked at.
pub const SAMPLE_ROWS: usize = 20_000;
/// How long leaders are handed out after the cuts, and how often each is tried.
const SPREAD_TIMEOUT: Duration = Duration::from_secs(5);
const HAND_OVERS_MAX: usize = 10;
const HAND_OVERS_AT_ONCE: usize = 8;
const HAND_OVER_PAUSE: Duration = Duration::from_millis(100);

/// Keys from all over a file, each as likely as any other (algorithm R, Vitter 1985): files are
/// often sorted, and their beginning says nothing about their end.
pub async fn sample(file: &Path, columns: &Arc<Columns>) -> Result<Vec<Key>, Failure> {
    let input = Box::new(File::open(file)?);
    let (lines, mut queue) = mpsc::channel(4096);
    let columns = columns.clone();
    let reader = std::thread::spawn(move || read(input, &columns, &lines));
    let mut rng = SmallRng::seed_from_u64(1);
    let mut keys = Vec::new();
    let mut seen = 0;
    while let Some(line) = queue.recv().await {
        let Line::Row(_, key, _) = line else { continue };
        seen += 1;
        if keys.len() < SAMPLE_ROWS {
            keys.push(key);
        } else {
            let at = rng.random_range(0..seen);
            if let Some(place) = keys.get_mut(at) {
                *place = key;
            }
        }
    }
    let read = reader.join().map_err(|_| Failure::new(UNEXPECTED, "reading the file failed"))?;
    read.map_err(|e| Failure::new(UNEXPECTED, format!("reading the file failed: {e}")))?;
    Ok(keys)
}

/// Splits so that about as many of `keys` lie in each of `pieces`.
pub async fn presplit(client: &Client, mut keys: Vec<Key>, pieces: usize) -> Result<(), Failure> {
    keys.sort_unstable();
    keys.dedup();
    let mut cuts: Vec<Key> =
        (1..pieces).filter_map(|i| keys.get(i * keys.len() / pieces.max(1)).cloned()).collect();
    cuts.dedup();
    for cut in &cuts {
        match client.admin().split(cut.clone()).await {
            Ok(_) => {}
            // A range begins there already.
            Err(error) if error.kind == isotherm_client::ErrorKind::Condition => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Without it the rows come as well, to fewer nodes at first.
    let spread = spread_leaders(client, &cuts);
    if let Ok(Err(error)) = tokio::time::timeout(SPREAD_TIMEOUT, spread).await {
        output::say(&format!("the new ranges are led by few nodes for now: {error}"));
    }
    Ok(())
}

/// Hands the ranges that begin at `cuts` out to the nodes of their replicas, evenly: a child is led by
/// the node that led its parent, and without load the scheduler leaves that as it is.
async fn spread_leaders(client: &Client, cuts: &[Key]) -> Result<(), ClientError> {
    let admin = client.admin();
    let nodes = admin.nodes().await?;
    let may_lead = |n: &&NodeStatus| n.state == "up" && n.intent == "active";
    // How many of them each node is to lead.
    let mut counts: BTreeMap<NodeId, usize> =
        nodes.iter().filter(may_lead).map(|n| (n.id, 0)).collect();
    let mut handed = Vec::new();
    for range in admin.ranges(&KeyRange::all()).await? {
        let is_cut = |key: &Key| cuts.binary_search(key).is_ok();
        if !is_cut(range.descriptor.span.start()) {
            // What is left of a parent stays where it is, and counts.
            let parent = range.leader.filter(|_| is_cut(range.descriptor.span.end()));
            parent.and_then(|node| counts.get_mut(&node)).into_iter().for_each(|count| *count += 1);
            continue;
        }
        let voters = range.descriptor.voters().map(|replica| replica.node);
        let rank = |node: &NodeId| Some((*counts.get(node)?, range.leader != Some(*node), *node));
        let best = voters.filter_map(|node| rank(&node)).min();
        if let Some((count, is_elsewhere, node)) = best {
            counts.insert(node, count + 1);
            if is_elsewhere {
                handed.push((range.descriptor.id, node));
            }
        }
    }
    let hand_over = async |(range, to): (RangeId, NodeId)| {
        // A follower that is a little behind is not handed anything.
        for _ in 0..HAND_OVERS_MAX {
            if admin.transfer_leader(range, to).await.is_ok() {
                return;
            }
            tokio::time::sleep(HAND_OVER_PAUSE).await;
        }
    };
    futures::stream::iter(handed).for_each_concurrent(HAND_OVERS_AT_ONCE, hand_over).await;
    Ok(())
}
