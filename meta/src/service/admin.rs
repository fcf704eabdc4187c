//! Members, ids, settings.

use crate::machine::{Command, Reply};
use crate::member::Meta;
use crate::settings;
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_telemetry::build_info;
use isotherm_types::limits::RANGES_MAX;
use isotherm_types::{ClusterId, ClusterVersion, NodeId};

/// Most ids in one request.
const IDS_MAX: u32 = 100_000;

/// A reply that its command cannot have.
pub(super) fn unexpected(reply: &Reply) -> WireError {
    match reply {
        Reply::Refused(why) => WireError::new(Code::Condition, why.clone()),
        other => WireError::new(Code::Internal, format!("an unexpected reply: {other:?}")),
    }
}

impl Meta {
    pub(super) fn answer_members(&self) -> pb::MembersResponse {
        let leadership = *self.group.leadership().borrow();
        pb::MembersResponse {
            cluster_id: self.group.machine().read().cluster().map_or(0, ClusterId::get),
            leader: self.known_leader().map_or(0, NodeId::get),
            term: leadership.term,
            members: self.member_list(),
            answered_by: self.me.get(),
            last_log_index: self.group.last_log_index(),
            supports_version: ClusterVersion::CURRENT.to_wire(),
            software: build_info().version.to_owned(),
        }
    }

    pub(super) async fn allocate_ids(
        &self,
        request: pb::AllocateIdsRequest,
    ) -> Result<pb::AllocateIdsResponse, WireError> {
        self.leading()?;
        self.check_cluster(request.cluster_id)?;
        let count = request.count;
        if !(1..=IDS_MAX).contains(&count) {
            let why = format!("{count} ids cannot be given, only 1 to {IDS_MAX}");
            return Err(WireError::new(Code::Invalid, why));
        }
        // All members hold the whole map in memory, and send it to each other.
        let ranges = self.group.machine().read().ranges().len();
        if ranges + count as usize > RANGES_MAX {
            let why = format!(
                "the cluster has {ranges} ranges, and {count} more would be above the limit of \
                 {RANGES_MAX}: set split.size and split.hot_cores higher"
            );
            return Err(WireError::new(Code::Condition, why));
        }
        match self.propose(Command::AllocateIds { count }, None).await? {
            Reply::Ids { first } => Ok(pb::AllocateIdsResponse { error: None, first: first.get() }),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn get_settings(&self) -> Result<pb::GetSettingsResponse, WireError> {
        self.leading()?;
        Ok(pb::GetSettingsResponse { error: None, settings: self.settings() })
    }

    /// Every setting with its value.
    pub(super) fn settings(&self) -> Vec<pb::Setting> {
        let machine = self.group.machine().read();
        let replicas = machine.founding().map_or(self.configured.replicas, |f| f.replicas);
        settings::list(machine.settings(), replicas)
    }

    pub(super) async fn set_setting(
        &self,
        request: pb::SetSettingRequest,
    ) -> Result<pb::SetSettingResponse, WireError> {
        self.leading()?;
        let pb::SetSettingRequest { name, value } = request;
        settings::check(&name, &value)?;
        tracing::info!(name, value, "setting changed");
        match self.propose(Command::SetSetting { name, value }, None).await? {
            Reply::Done => Ok(pb::SetSettingResponse { error: None }),
            other => Err(unexpected(&other)),
        }
    }
}
