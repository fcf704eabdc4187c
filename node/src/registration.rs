//! How a node comes to its identity and to the number of its start: the meta service gives both.
//!
//! While the meta service is not there, a node starts as what it was at its last start, by a note in
//! its directory (`last-start.json`). It serves reads, and votes, as it would have done without the
//! restart; a copy of its directory does not, because a copy is in another place. It goes on asking
//! for a number meanwhile, and ends when it is refused.

use crate::{NodeConfig, NodeError};
use isotherm_proto::WireError;
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::{RegisterNodeRequest, RegisterNodeResponse};
use isotherm_storage::{DataDir, Identity, KnownPeer, LastStart, Place};
use isotherm_telemetry::build_info;
use isotherm_transport::MetaLink;
use isotherm_types::{ClusterId, ClusterVersion, Incarnation, NodeId, RaftTiming};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A background registration has to be done soon after the meta service is back.
const PAUSE_MAX_WHILE_SERVING: Duration = Duration::from_millis(200);
/// A meta service that does not answer for that long is not waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who this node is, as meta told.
#[derive(Debug, Clone, Copy)]
pub struct Registration {
    pub identity: Identity,
    pub incarnation: Incarnation,
}

/// As what a node starts.
pub struct Begun {
    /// Of this start, or of the last one if meta was not there.
    pub registration: Registration,
    /// Whether meta has admitted this start.
    pub is_registered: bool,
    /// The other nodes as they were last known.
    pub peers: Vec<KnownPeer>,
}

/// Whether a refusal is final: asking again cannot help, and whoever goes on does harm.
pub fn is_final(error: &WireError) -> bool {
    matches!(error.code(), Code::Incompatible | Code::Condition | Code::NotFound)
}

/// Registers this process.
pub struct Registrar {
    pub config: NodeConfig,
    pub dir: Arc<DataDir>,
    pub meta: Arc<MetaLink>,
    /// How others reach this node.
    pub address: String,
    pub http_address: String,
    pub note: Arc<StartNote>,
}

impl Registrar {
    /// Registers, or starts as the last start if the meta service is not there and the directory
    /// still is where it was.
    pub async fn begin(&self) -> Result<Begun, NodeError> {
        let last = self.dir.last_start()?;
        let peers = last.as_ref().map_or_else(Vec::new, |last| last.peers.clone());
        let registering = self.register(PAUSE_MAX);
        tokio::pin!(registering);
        if let Ok(registered) = tokio::time::timeout(PATIENCE, &mut registering).await {
            return Ok(Begun { registration: registered?, is_registered: true, peers });
        }
        let may = may_start(last, || Place::of(self.dir.path()));
        match may.and_then(|last| Ok((last, self.dir.identity().ok_or("it has no identity")?))) {
            Ok((last, identity)) => {
                tracing::warn!(
                    incarnation = %last.incarnation,
                    "the meta service does not answer: starting as at the last start. Reads are \
                     served, writes wait for the meta service"
                );
                let registration = Registration { identity, incarnation: last.incarnation };
                Ok(Begun { registration, is_registered: false, peers })
            }
            Err(why) => {
                tracing::warn!(
                    why,
                    "this node cannot start without the meta service: waiting for it"
                );
                Ok(Begun { registration: registering.await?, is_registered: true, peers })
            }
        }
    }

    /// Registers after a start without the meta service.
    pub async fn register_late(&self) -> Result<Registration, NodeError> {
        self.register(PAUSE_MAX_WHILE_SERVING).await
    }

    /// Registers with meta, for as long as it takes; an answer that says no ends it.
    async fn register(&self, pause_max: Duration) -> Result<Registration, NodeError> {
        let mut pause = PAUSE;
        let mut known = self.dir.identity();
        // The ids of a first start, before meta knows the cluster's timing.
        let mut node_id = known.map_or(0, |i| i.node.get());
        let mut told = false;
        loop {
            let request = RegisterNodeRequest {
                node_id,
                cluster_id: known.map_or(0, |i| i.cluster.get()),
                address: self.address.clone(),
                http_address: self.http_address.clone(),
                labels: self.config.labels.clone().into_iter().collect(),
                version: build_info().version.to_owned(),
                supports_version: ClusterVersion::CURRENT.to_wire(),
                supports_from: ClusterVersion::OLDEST.to_wire(),
            };
            match self.register_once(request).await {
                Ok(answer) => {
                    node_id = answer.node_id;
                    if let Some(timing) = answer.timing {
                        let timing = RaftTiming::from(timing);
                        let identity = *known.get_or_insert(Identity {
                            cluster: ClusterId(answer.cluster_id),
                            node: NodeId(answer.node_id),
                            timing,
                        });
                        if self.dir.identity().is_none() {
                            self.dir.set_identity(identity)?;
                        }
                        let incarnation = Incarnation(answer.incarnation);
                        // Before it is used: a number that is noted was never used by an earlier start.
                        let version = ClusterVersion::from_wire(answer.cluster_version);
                        self.note.set_incarnation(incarnation, version).await;
                        return Ok(Registration { identity, incarnation });
                    }
                }
                Err(error) if is_final(&error) || error.code() == Code::Invalid => {
                    return Err(NodeError::Refused(error.0.message.clone()));
                }
                Err(error) => {
                    self.meta.forget_leader();
                    if !told {
                        tracing::warn!(error = %error, "the meta service does not answer, trying on");
                        told = true;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(pause_max);
        }
    }

    async fn register_once(
        &self,
        request: RegisterNodeRequest,
    ) -> Result<RegisterNodeResponse, WireError> {
        let unavailable = |why: String| WireError::new(Code::Unavailable, why);
        let mut leader = self.meta.leader().await?;
        let answer = tokio::time::timeout(TIMEOUT, leader.register_node(request)).await;
        let answer = answer
            .map_err(|_| unavailable("no answer in time".to_owned()))?
            .map_err(|status| unavailable(status.message().to_owned()))?
            .into_inner();
        self.meta.check(answer.error.clone())?;
        Ok(answer)
    }
}

/// Whether a node may start by the note of its last start alone; an error says why not.
fn may_start(
    last: Option<LastStart>,
    place: impl FnOnce() -> std::io::Result<Place>,
) -> Result<LastStart, String> {
    let last = last.ok_or("no start of it was noted")?;
    let place = place().map_err(|e| format!("it cannot be told where its directory is: {e}"))?;
    if last.place != place {
        return Err("its directory was copied, restored or moved since its last start".to_owned());
    }
    let version = ClusterVersion::from_wire(last.cluster_version);
    if !version.is_supported() {
        let (from, to) = (ClusterVersion::OLDEST, ClusterVersion::CURRENT);
        return Err(format!(
            "the cluster runs at version {version}, this software at {from} to {to}"
        ));
    }
    Ok(last)
}

/// Keeps the note of this start up to date. A note that cannot be written is older than it could be:
/// a start by it is refused by other nodes, or waits for the meta service.
pub struct StartNote {
    dir: Arc<DataDir>,
    noted: Mutex<Option<LastStart>>,
}

impl StartNote {
    /// Of the node that owns `dir`.
    pub fn new(dir: Arc<DataDir>) -> Result<Arc<Self>, NodeError> {
        let noted = Mutex::new(dir.last_start()?);
        Ok(Arc::new(Self { dir, noted }))
    }

    /// Meta has given this start its number.
    async fn set_incarnation(&self, incarnation: Incarnation, version: ClusterVersion) {
        let peers = self.noted.lock().as_ref().map_or_else(Vec::new, |note| note.peers.clone());
        self.write(incarnation, version, peers).await;
    }

    /// What the cluster uses, and where the other nodes are; written only if that is new.
    pub async fn update(
        &self,
        incarnation: Incarnation,
        version: ClusterVersion,
        peers: Vec<KnownPeer>,
    ) {
        let is_known =
            |note: &LastStart| note.peers == peers && note.cluster_version == version.to_wire();
        let is_news = !self.noted.lock().as_ref().is_some_and(is_known);
        if is_news {
            self.write(incarnation, version, peers).await;
        }
    }

    async fn write(
        &self,
        incarnation: Incarnation,
        version: ClusterVersion,
        peers: Vec<KnownPeer>,
    ) {
        let dir = self.dir.clone();
        let write = move || {
            let place = Place::of(dir.path()).map_err(|e| e.to_string())?;
            let note = LastStart { incarnation, cluster_version: version.to_wire(), place, peers };
            dir.set_last_start(&note).map_err(|e| e.to_string())?;
            Ok::<_, String>(note)
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(note)) => *self.noted.lock() = Some(note),
            Ok(Err(error)) => {
                tracing::warn!(error, "this start cannot be noted in the data directory");
            }
            // The process ends.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn place(inode: u64) -> Place {
        Place { machine: "m".to_owned(), device: 1, inode }
    }

    fn last(cluster_version: u32) -> Option<LastStart> {
        let (incarnation, peers) = (Incarnation(7), Vec::new());
        Some(LastStart { incarnation, cluster_version, place: place(2), peers })
    }

    #[test]
    fn a_node_starts_by_its_note_only_where_it_was_and_at_a_version_that_it_knows() {
        assert!(may_start(last(0), || Ok(place(2))).is_ok());
        assert!(may_start(None, || Ok(place(2))).is_err());
        let copy = may_start(last(0), || Ok(place(3))).unwrap_err();
        assert!(copy.contains("copied"), "{copy}");
        let other = Place { machine: "other".to_owned(), ..place(2) };
        assert!(may_start(last(0), || Ok(other)).is_err());
        assert!(may_start(last(0), || Err(std::io::Error::other("gone"))).is_err());
        let newer = ClusterVersion::CURRENT.to_wire() + 1;
        let refused = may_start(last(newer), || Ok(place(2))).unwrap_err();
        assert!(refused.contains(&format!("version {newer}")), "{refused}");
    }
}
