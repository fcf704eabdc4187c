//! Opening a store over what is on disk, and seeding ranges.
//!
//! With the data's WAL off a crash rolls `data` back to the last flush, while the log keeps every
//! synced vote and entry. So replicas are found in both: a range with a descriptor in `data`
//! starts from its applied row; a replica that only the log knows starts from its creation
//! record; an install that was cut off is done again from its delete, before any replica starts.

use super::context::Birth;
use super::create::CreationRecord;
use super::destroy::{clear_away, finish_destructions, is_buried};
use super::rooms::Rooms;
use super::{Store, StoreContext, StoreError, StoreOptions, TimestampSource};
use crate::replica::{AppliedState, Core, InstallMarker, SessionMemory, Sessions, roll_forward};
use crate::sender::PeerSender;
use futures::StreamExt;
use isotherm_storage::{
    DataBatch, DataDir, DataEngine, Garbage, LocalKey, LogEngine, ReplicaKey, StateKind,
    StorageError, codec,
};
use isotherm_types::{ClusterVersion, RangeDescriptor, RangeId, ReplicaId, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Replicas started at a time when a store opens.
const STARTS_AT_ONCE: usize = 16;
/// What the election of one of very many ranges may take.
const START_EACH: Duration = Duration::from_millis(4);

impl Store {
    /// Opens the store and starts every replica that is on disk.
    pub async fn open(
        options: StoreOptions,
        dirs: &DataDir,
        log: Arc<dyn LogEngine>,
        data: DataEngine,
        sender: Arc<dyn PeerSender>,
        oracle: Arc<dyn TimestampSource>,
    ) -> Result<Arc<Self>, StoreError> {
        let (births, born) = mpsc::unbounded_channel();
        let staging = dirs.snapshots_dir().to_owned();
        let ctx = StoreContext::new(options, data, log, sender, oracle, staging, births);
        let found = {
            let ctx = ctx.clone();
            let find = move || {
                // Before anything else: an install that is finished now relies on it.
                ctx.load_safe_point()?;
                find_replicas(&ctx)
            };
            tokio::task::spawn_blocking(find)
                .await
                .map_err(|e| StoreError::Corrupt(format!("opening the store failed: {e}")))??
        };
        let store = Arc::new(Self {
            rooms: Rooms::new(ctx.tuning.snapshots_at_once),
            replicas: Default::default(),
            claims: Default::default(),
            campaigns: Semaphore::new(super::tend::CAMPAIGNS_AT_ONCE),
            successions: Default::default(),
            ctx,
        });
        store.ctx.set_host(&store);
        tracing::info!(replicas = found.len(), "store opened");
        let many = found.len();
        let (mut hosted, mut damaged) = (Vec::new(), Vec::new());
        for Found { id, core, damage } in found {
            match damage {
                None => hosted.push(store.host(id, core)),
                Some(why) => damaged.push((store.host_damaged(id, core), why)),
            }
        }
        damaged.iter().for_each(|(replica, why)| replica.found_damage(why));
        let starts = hosted.into_iter().map(|(replica, queue)| {
            let store = store.clone();
            async move {
                match store.start_hosted(&replica, queue, many).await {
                    // One replica, not the node.
                    Err(error @ StoreError::Damaged { .. }) => {
                        replica.ended.cancel();
                        replica.found_damage(&error);
                        Ok(())
                    }
                    started => started,
                }
            }
        });
        let mut starts = futures::stream::iter(starts).buffer_unordered(STARTS_AT_ONCE);
        while let Some(started) = starts.next().await {
            started?;
        }
        drop(starts);
        store.spawn_tasks(born);
        store.begin_elections(store.ctx.timing.vote_hold());
        Ok(store)
    }

    fn spawn_tasks(self: &Arc<Self>, mut born: mpsc::UnboundedReceiver<Birth>) {
        let (store, stop) = (self.clone(), self.ctx.stop.clone());
        self.spawn_until_stop("children of splits", async move {
            while let Some(Some(birth)) = stop.run_until_cancelled(born.recv()).await {
                store.start_children(birth).await;
            }
        });
        self.spawn_until_stop("flushes", self.clone().run_flushes());
        self.spawn_until_stop("tending of ranges", self.clone().run_tending());
        self.spawn_until_stop("collection of history", self.clone().run_collection());
        self.spawn_until_stop("forgetting of results", self.clone().run_forgetting());
        self.spawn_until_stop("signs of life", self.clone().run_liveness());
        self.spawn_until_stop("hibernation", self.clone().run_hibernation());
        self.spawn_until_stop("raising of ranges", self.clone().run_raises());
        self.spawn_until_stop("watch of syncs", self.clone().run_stall_watch());
        if !self.ctx.tuning.scrub_interval.is_zero() {
            self.spawn_until_stop("scrub", self.clone().run_scrub());
        }
    }

    /// Spawns a task that lasts as long as the store; without it the process ends.
    fn spawn_until_stop(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.ctx.tasks.spawn(isotherm_task::until(name, self.ctx.stop.clone(), task));
    }

    /// Starts ranges from nothing, as meta's bootstrap orders. Those that are there already, or are just
    /// being created, are left alone, and so are those that were here and are gone for good: a node that
    /// was started again may be ordered what it did long ago.
    pub async fn seed(self: &Arc<Self>, descriptors: &[RangeDescriptor]) -> Result<(), StoreError> {
        let (mut cores, mut claims) = (Vec::new(), Vec::new());
        for descriptor in descriptors {
            let claim = self.claims.take(descriptor.id);
            let Some(claim) = claim.filter(|_| self.replica(descriptor.id).is_none()) else {
                continue;
            };
            let Some(me) = descriptor.replica_on(self.ctx.node).map(|r| r.id) else {
                let why = format!("{} has no replica on this node", descriptor.id);
                return Err(StoreError::Corrupt(why));
            };
            if is_buried(&self.ctx, ReplicaKey { range: descriptor.id, replica: me })? {
                tracing::info!(range_id = %descriptor.id, replica_id = %me, "a first range was removed from here: it is not started again");
                continue;
            }
            claims.push(claim);
            self.ctx.spans.reserve(descriptor.id, &descriptor.span)?;
            let memory = SessionMemory::default();
            cores.push((me, Core::seed(descriptor.clone(), Timestamp::ZERO, memory)));
        }
        if cores.is_empty() {
            return Ok(());
        }
        let mut batch = DataBatch::new();
        cores.iter().for_each(|(_, core)| core.persist_into(&mut batch));
        let data = self.ctx.data.clone();
        tokio::task::spawn_blocking(move || data.write(batch).and_then(|()| data.flush()))
            .await
            .map_err(|e| StoreError::Corrupt(format!("seeding failed: {e}")))??;
        let ranges: Vec<RangeId> = cores.iter().map(|(_, core)| core.descriptor.id).collect();
        let many = cores.len();
        let starts = cores.into_iter().map(|(id, core)| self.start_one_of(id, core, many));
        let mut starts = futures::stream::iter(starts).buffer_unordered(STARTS_AT_ONCE);
        while let Some(started) = starts.next().await {
            started?;
        }
        drop(starts);
        drop(claims);
        tracing::info!(ranges = ranges.len(), "ranges seeded");
        for range in ranges {
            // Leaders are spread: each range is first led by the replica that its id points at.
            let store = self.clone();
            self.ctx.tasks.spawn(async move { store.campaign_if_first(range).await });
        }
        // For those whose first leader does not come.
        self.begin_elections(self.ctx.timing.vote_hold() + START_EACH * many as u32);
        Ok(())
    }
}

impl Core {
    /// A replica that has nothing yet: its state comes by snapshot.
    pub fn empty(descriptor: RangeDescriptor) -> Self {
        let applied = AppliedState {
            log_id: None,
            membership: Default::default(),
            last_ts: Timestamp::ZERO,
            apply_version: ClusterVersion::FIRST,
            memory: SessionMemory::default(),
            frozen: None,
            absorbed: Default::default(),
        };
        let descriptor = Arc::new(descriptor);
        let (sessions, garbage) = (Sessions::default(), Garbage::default());
        Self { generation: 0, descriptor, applied, sessions, garbage }
    }
}

/// A replica that is on disk.
struct Found {
    id: ReplicaId,
    core: Core,
    /// Why it cannot be read.
    damage: Option<String>,
}

impl Found {
    fn damaged(id: ReplicaId, descriptor: RangeDescriptor, why: &StorageError) -> Self {
        Self { id, core: Core::empty(descriptor), damage: Some(why.to_string()) }
    }
}

/// Everything that is on disk, after finishing what a crash cut off. Blocking.
fn find_replicas(ctx: &StoreContext) -> Result<Vec<Found>, StoreError> {
    let mut found: HashMap<RangeId, Found> = HashMap::new();
    let mut in_log: HashMap<RangeId, Vec<ReplicaKey>> = HashMap::new();
    let keys = ctx.log.replicas()?;
    finish_destructions(ctx, &keys)?;
    for key in keys {
        if is_buried(ctx, key)? {
            continue;
        }
        in_log.entry(key.range).or_default().push(key);
        if let Some(bytes) = ctx.log.state(key, StateKind::InstallMarker)? {
            let marker: InstallMarker = codec::decode(&bytes)?;
            tracing::info!(range_id = %key.range, replica_id = %key.replica, "finishing a snapshot install");
            if let Err(error) = roll_forward(ctx, key, &marker) {
                // Nothing of it is whole. It does not take the node with it.
                if !is_of_one_replica(&error) {
                    return Err(error.into());
                }
                let descriptor = marker.staged.header.descriptor.clone();
                ctx.spans.reserve(key.range, &descriptor.span)?;
                found.insert(key.range, Found::damaged(key.replica, descriptor, &error));
            }
        }
    }
    clear_staging(ctx)?;
    for range in ctx.data.local_ranges()? {
        if found.contains_key(&range) {
            continue;
        }
        let loaded = match Core::load(&ctx.data, range) {
            Err(error) if error.is_damage() => {
                // Without its descriptor nobody knows what it is: then it is the node.
                let row = ctx.data.local(&LocalKey::Descriptor(range))?;
                let row = row.ok_or_else(|| StoreError::Corrupt(format!("{range} has gone")))?;
                let descriptor: RangeDescriptor = codec::decode(&row)?;
                if let Some(me) = own_id(ctx, &descriptor, in_log.get(&range))? {
                    ctx.spans.reserve(range, &descriptor.span)?;
                    found.insert(range, Found::damaged(me, descriptor, &error));
                }
                continue;
            }
            loaded => loaded?,
        };
        let Some(core) = loaded else {
            return Err(StoreError::Corrupt(format!(
                "{range} has a descriptor but no applied state"
            )));
        };
        let Some(me) = own_id(ctx, &core.descriptor, in_log.get(&range))? else {
            return Err(StoreError::Corrupt(format!(
                "{range} does not name this node ({})",
                ctx.node
            )));
        };
        ctx.spans.reserve(range, &core.descriptor.span)?;
        found.insert(range, Found { id: me, core, damage: None });
    }
    let absorbed: HashMap<RangeId, &Core> = found
        .values()
        .flat_map(|Found { core, .. }| {
            core.applied.absorbed.iter().map(move |range| (*range, core))
        })
        .collect();
    let mut created = Vec::new();
    for (range, keys) in &in_log {
        for key in keys.iter().filter(|_| !found.contains_key(range)) {
            let record = ctx.log.state(*key, StateKind::Creation)?;
            let record =
                record.map(|bytes| codec::decode::<CreationRecord, _>(&bytes)).transpose()?;
            let is_part_of = |core: &Core| {
                let of = record.as_ref().map(|r| &r.descriptor);
                of.is_some_and(|of| of.is_superseded_by(&core.descriptor))
            };
            if absorbed.contains_key(range) || found.values().any(|of| is_part_of(&of.core)) {
                tracing::info!(range_id = %range, replica_id = %key.replica, "clearing away a replica that was merged");
                clear_away(ctx, *key).map_err(isotherm_storage::StorageError::from)?;
            } else if let Some(record) = record {
                created.push((key.replica, record.descriptor));
            }
            // Otherwise a child of a split that is rolled back here: the parent applies the split
            // again from its log, and the child then starts over the votes and entries it has.
        }
    }
    for (id, descriptor) in created {
        ctx.spans.reserve(descriptor.id, &descriptor.span)?;
        let core = Core::empty(descriptor.clone());
        found.insert(descriptor.id, Found { id, core, damage: None });
    }
    Ok(found.into_values().collect())
}

/// Whether an install failed because of what it was to bring.
pub(super) fn is_of_one_replica(error: &StorageError) -> bool {
    let is_gone = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
    match error {
        StorageError::EngineStopped { .. } => false,
        StorageError::Io(error) => is_gone(error) || error.raw_os_error() == Some(5),
        error => error.is_damage(),
    }
}

/// Which replica of the range this node has: the newest that was not destroyed. The descriptor alone
/// does not say: one that applied its own removal, and waits for meta's word, is no longer in it.
fn own_id(
    ctx: &StoreContext,
    descriptor: &RangeDescriptor,
    in_log: Option<&Vec<ReplicaKey>>,
) -> Result<Option<ReplicaId>, StoreError> {
    let mut ids: Vec<_> = in_log.into_iter().flatten().map(|key| key.replica).collect();
    if let Some(named) = descriptor.replica_on(ctx.node) {
        let key = ReplicaKey { range: descriptor.id, replica: named.id };
        if !is_buried(ctx, key)? {
            ids.push(named.id);
        }
    }
    Ok(ids.into_iter().max())
}

/// Removes what snapshots left behind. Blocking.
fn clear_staging(ctx: &StoreContext) -> Result<(), StoreError> {
    let _ = std::fs::remove_dir_all(&ctx.staging);
    std::fs::create_dir_all(&ctx.staging).map_err(isotherm_storage::StorageError::from)?;
    Ok(())
}
