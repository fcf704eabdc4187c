//! Who asks: of which cluster, and which start of which node.
//!
//! The refusals here end the asking process, so they must be certain: a member that has lost its
//! leadership without knowing it may not have heard of a registration.

use crate::member::Meta;
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_types::{ClusterId, Incarnation, NodeId};

impl Meta {
    /// Refuses what is meant for another cluster; 0: whoever asks did not say.
    pub(super) fn check_cluster(&self, asked: u64) -> Result<(), WireError> {
        if asked == 0 {
            return Ok(());
        }
        let asked = ClusterId(asked);
        match self.group.machine().read().cluster() {
            Some(cluster) if cluster == asked => Ok(()),
            Some(cluster) => {
                let why = format!(
                    "this meta service is of cluster {cluster}, the request is for {asked}: another \
                     cluster has its address now, or it was founded again. Give the addresses of \
                     the meta service of {asked}"
                );
                Err(WireError::new(Code::Incompatible, why))
            }
            None => Err(WireError::new(Code::Unavailable, "the cluster does not exist yet")),
        }
    }

    /// A heartbeat, whose refusal a quorum confirms.
    pub(super) async fn heartbeat_confirmed(
        &self,
        request: pb::HeartbeatRequest,
    ) -> Result<pb::HeartbeatResponse, WireError> {
        self.leading()?;
        if self.check_sender(&request).is_err() {
            self.confirmed_leading().await?;
        }
        self.heartbeat(request)
    }

    /// Refuses a heartbeat of another cluster, of a node that is not known, and of a start that is
    /// not the last one.
    pub(super) fn check_sender(&self, request: &pb::HeartbeatRequest) -> Result<(), WireError> {
        self.check_cluster(request.cluster_id)?;
        let (node, incarnation) = (NodeId(request.node_id), Incarnation(request.incarnation));
        let machine = self.group.machine().read();
        let Some(record) = machine.nodes().get(&node) else {
            let why = format!(
                "node {node} is not registered: it held nothing when another node came to its \
                 address. Start it with an empty data directory to make a new node of it"
            );
            return Err(WireError::new(Code::NotFound, why));
        };
        let last = record.incarnation;
        let why = if last > incarnation {
            format!(
                "node {node} was started again as {last}: {incarnation} is an earlier start of it, \
                 or its data directory is used twice. Keep one of the two"
            )
        } else if last < incarnation {
            format!(
                "this meta service knows of no later start of node {node} than {last}, and this is \
                 {incarnation}: its state was set back. Restore the newest state of it"
            )
        } else {
            return Ok(());
        };
        Err(WireError::new(Code::Condition, why))
    }
}
