//! A node announces itself.

use super::admin::unexpected;
use super::upgrade::check_supported;
use crate::machine::{Command, NodeDetails, Reply};
use crate::member::Meta;
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_transport::check_reachable;
use isotherm_types::limits::{
    ADDRESS_BYTES_MAX, LABEL_BYTES_MAX, LABELS_BYTES_MAX, LABELS_MAX, NODES_MAX,
};
use isotherm_types::{ClusterVersion, NodeId};
use std::time::Instant;

/// What is wrong with a request by itself.
fn check(request: &pb::RegisterNodeRequest) -> Result<(), WireError> {
    let invalid = |why: &str| Err(WireError::new(Code::Invalid, why));
    let address = &request.address;
    if address.len() > ADDRESS_BYTES_MAX || check_reachable(address).is_err() {
        return invalid("a node needs an address such as host:port under which others reach it");
    }
    if request.labels.len() > LABELS_MAX {
        return invalid("a node has 64 labels at most");
    }
    let is_long = |text: &String| text.len() > LABEL_BYTES_MAX;
    if request.labels.iter().any(|(name, value)| is_long(name) || is_long(value)) {
        return invalid("a label has 256 bytes at most, in its name and in its value");
    }
    let together: usize = request.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    if together > LABELS_BYTES_MAX {
        return invalid("the labels of a node have 4096 bytes together at most");
    }
    if request.http_address.len() > ADDRESS_BYTES_MAX || is_long(&request.version) {
        return invalid("a node's HTTP address and version have 256 bytes at most");
    }
    if request.node_id != 0 && request.cluster_id == 0 {
        return invalid("a node with an id must say of which cluster it is");
    }
    Ok(())
}

/// Whether one more than the `known` nodes can be taken in: answers list all of them.
pub(super) fn check_new(known: usize) -> Result<(), WireError> {
    if known < NODES_MAX {
        return Ok(());
    }
    let why = format!(
        "the cluster knows {NODES_MAX} nodes, which is the limit: those that were decommissioned count as \
         well"
    );
    Err(WireError::new(Code::Condition, why))
}

impl Meta {
    pub(super) async fn register_node(
        &self,
        request: pb::RegisterNodeRequest,
    ) -> Result<pb::RegisterNodeResponse, WireError> {
        self.leading()?;
        check(&request)?;
        let (cluster, timing) = {
            let machine = self.group.machine().read();
            machine.cluster().zip(machine.timing()).ok_or_else(|| {
                WireError::new(Code::Unavailable, "the cluster does not exist yet")
            })?
        };
        let incompatible = |why: String| Err(WireError::new(Code::Incompatible, why));
        if request.cluster_id != 0 && request.cluster_id != cluster.get() {
            return incompatible(format!(
                "the node's data belongs to cluster c{}, this is {cluster}: start it with the meta \
                 service of its own cluster or with an empty data directory",
                request.cluster_id
            ));
        }
        let supports = ClusterVersion::from_wire(request.supports_version);
        let from = ClusterVersion::from_wire(request.supports_from);
        check_supported(self.group.machine().read().version(), from, supports)?;
        let node = (request.node_id != 0).then_some(NodeId(request.node_id));
        if node.is_none() {
            check_new(self.group.machine().read().nodes().len())?;
        }
        let details = NodeDetails {
            address: request.address,
            http_address: request.http_address,
            labels: request.labels.into_iter().collect(),
            version: request.version,
        };
        let (id, incarnation) =
            match self.propose(Command::RegisterNode { node, details }, None).await? {
                Reply::Node { id, incarnation } => (id, incarnation),
                Reply::Refused(why) => return incompatible(why),
                other => return Err(unexpected(&other)),
            };
        // Again: it may have been raised since, without this node in view.
        let version = self.group.machine().read().version();
        check_supported(version, from, supports)?;
        self.registry.lock().register(id, incarnation, Instant::now());
        tracing::info!(node_id = %id, %incarnation, "node registered");
        let ts = self.oracle.timestamps(1).await?;
        Ok(pb::RegisterNodeResponse {
            error: None,
            cluster_id: cluster.get(),
            node_id: id.get(),
            incarnation: incarnation.get(),
            timing: Some(timing.into()),
            ts: ts.get(),
            cluster_version: version.to_wire(),
        })
    }
}
