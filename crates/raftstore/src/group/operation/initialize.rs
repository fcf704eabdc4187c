//! The first start of a group.

use crate::group::applied::Machine;
use crate::group::{Group, GroupError};
use crate::type_config::Host;
use isotherm_types::NodeId;
use openraft::errors::{InitializeError, RaftError};
use std::collections::BTreeMap;

impl<M: Machine> Group<M> {
    /// Gives the group its members. Does nothing if it has some already; every member may do it,
    /// with the same members.
    pub async fn initialize(&self, members: &[NodeId]) -> Result<(), GroupError> {
        let instance = self.running()?;
        let hosts: BTreeMap<u64, Host> =
            members.iter().map(|node| (node.get(), Host::from(*node))).collect();
        match instance.raft.initialize(hosts).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error @ InitializeError::NotInMembers(_))) => {
                tracing::error!(error = %error, "the group cannot be initialized");
                Err(GroupError::NotLeader { leader: None })
            }
            Err(RaftError::Fatal(_)) => Err(GroupError::Stopped),
        }
    }
}
