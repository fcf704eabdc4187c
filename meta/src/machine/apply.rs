//! Applying commands.

use super::command::{Command, Reply};
use super::state::{MetaMachine, Reign};
use isotherm_raftstore::Machine;
use isotherm_storage::codec;
use isotherm_types::{ClusterVersion, KeyRange, NodeId, RangeDescriptor, RangeId, Timestamp};

impl Machine for MetaMachine {
    /// # Panics
    /// If the command cannot be read: it comes from a newer software, and a member that skipped it
    /// would disagree with the others from then on. The member stays stopped until it is updated.
    fn apply(&mut self, term: u64, index: u64, command: &[u8]) -> Vec<u8> {
        let command = match codec::decode::<Command, _>(command) {
            Ok(command) => command,
            Err(error) => {
                tracing::error!(term, index, %error, "a command cannot be read, this member stops");
                panic!("meta command {index} cannot be read: {error}");
            }
        };
        codec::encode(&self.apply_command(term, command))
    }

    fn snapshot(&self) -> Vec<u8> {
        self.to_snapshot()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        *self = Self::from_snapshot(snapshot)?;
        Ok(())
    }
}

pub(super) fn refused(why: impl Into<String>) -> Reply {
    Reply::Refused(why.into())
}

impl MetaMachine {
    /// Applies one command of an entry of `term`.
    pub(crate) fn apply_command(&mut self, term: u64, command: Command) -> Reply {
        if let Command::Found { cluster, timing, founding } = command {
            // Two leaders may both have found nothing; the first entry counts.
            if self.cluster.is_none() {
                self.cluster = Some(cluster);
                self.timing = Some(timing);
                self.founding = Some(founding);
            }
            return Reply::Done;
        }
        if self.cluster.is_none() {
            return refused("the cluster does not exist yet");
        }
        match command {
            Command::Found { .. } => Reply::Done,
            Command::Bootstrap { ranges } => self.bootstrap(ranges),
            Command::SeedingDone => {
                self.seeds.clear();
                Reply::Done
            }
            Command::RegisterNode { node, details } => self.register(node, details),
            Command::TakeDescriptors { changes } => {
                let taken = changes.iter().filter(|c| self.ranges.apply(c).is_ok()).count();
                Reply::Taken { taken }
            }
            Command::AllocateIds { count } => {
                let first = RangeId(self.ranges_given + 1);
                self.ranges_given += u64::from(count);
                Reply::Ids { first }
            }
            Command::ExtendTimestamps { member, to, by } => {
                self.extend(Reign { term, member }, to, by)
            }
            Command::SetSetting { name, value } => {
                self.settings.insert(name, value);
                Reply::Done
            }
            Command::Operation(command) => self.apply_operation(command),
            Command::RaiseSafePoint { to } if to > self.window.high => {
                refused("no timestamp as high as that can have been issued")
            }
            Command::RaiseSafePoint { to } => {
                self.safe_point = self.safe_point.max(to);
                Reply::Done
            }
            Command::SetIntent { node, intent } => self.set_intent(node, intent),
            Command::Merge(command) => self.apply_merge(command),
            Command::RaiseVersion { to, starts } => self.raise_version(to, starts),
        }
    }

    /// # Panics
    /// If this software does not support the version: what follows in the log it cannot apply.
    fn raise_version(&mut self, to: ClusterVersion, starts: u64) -> Reply {
        if starts != self.incarnations_given {
            return refused("a node has started in the meantime: try again");
        }
        if to > ClusterVersion::CURRENT {
            tracing::error!(
                cluster_version = to.0,
                supports = ClusterVersion::CURRENT.0,
                "the cluster uses a version that this software does not know, this member stops: \
                 upgrade it"
            );
            panic!("cluster version {to} is not known to this software");
        }
        self.version = self.version.max(to);
        Reply::Done
    }

    fn bootstrap(&mut self, ranges: Vec<(KeyRange, Vec<NodeId>)>) -> Reply {
        if self.is_bootstrapped() {
            return refused("the cluster has its ranges already");
        }
        if let Some(unknown) =
            ranges.iter().flat_map(|(_, nodes)| nodes).find(|node| !self.nodes.contains_key(node))
        {
            return refused(format!("node {unknown} is not registered"));
        }
        let descriptors: Vec<_> = (self.ranges_given + 1..)
            .zip(ranges)
            .map(|(id, (span, nodes))| RangeDescriptor::first(RangeId(id), span, &nodes))
            .collect();
        if let Err(error) = self.ranges.apply(&descriptors) {
            return refused(error.to_string());
        }
        self.ranges_given += descriptors.len() as u64;
        self.seeds = descriptors;
        Reply::Done
    }

    fn extend(&mut self, reign: Reign, to: Timestamp, by: u64) -> Reply {
        let Some(least) = self.window.high.get().checked_add(by.max(1)) else {
            return refused("there are no timestamps left");
        };
        if self.window.reign != reign {
            self.window.reign = reign;
            self.window.low = self.window.high.next();
        }
        self.window.high = to.max(Timestamp(least));
        Reply::Window(self.window)
    }
}
