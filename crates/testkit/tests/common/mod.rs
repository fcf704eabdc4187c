//! What tests on a whole cluster have in common.

use isotherm_client::{Client, ClientOptions, RangeLocation};
use isotherm_testkit::ProcessCluster;
use isotherm_types::KeyRange;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub fn client(cluster: &ProcessCluster) -> Client {
    let options = ClientOptions { meta: cluster.meta_addresses(), ..ClientOptions::default() };
    Client::connect(options).unwrap()
}

pub async fn ranges(client: &Client) -> Vec<RangeLocation> {
    client.admin().ranges(&KeyRange::all()).await.unwrap()
}

/// Looks until what is seen is as it should be.
pub async fn eventually<F: Future<Output = Result<(), String>>>(
    within: Duration,
    mut look: impl FnMut() -> F,
) {
    let deadline = Instant::now() + within;
    while let Err(seen) = look().await {
        assert!(Instant::now() < deadline, "not within {within:?}: {seen}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A replica may be late to sum its rows; sums of one index that differ never become equal.
pub async fn replicas_are_equal(client: &Client) {
    for range in ranges(client).await {
        let id = range.descriptor.id;
        eventually(Duration::from_secs(30), async || {
            let sums = client.admin().checksum(id).await.map_err(|e| e.to_string())?;
            let mut known = BTreeSet::new();
            for sum in sums {
                known.insert((sum.checksum?, sum.rows));
            }
            assert_eq!(known.len(), 1, "{id}: {known:?}");
            Ok(())
        })
        .await;
    }
}
