//! Routes from the nodes themselves, for when the meta service does not answer.
//!
//! A node knows only the ranges that it hosts, and may be behind. So several are asked at a time, and
//! of what they say the newest epoch counts, and of equal epochs the newest term.

use crate::router::Router;
use isotherm_proto::internal::range_service_client::RangeServiceClient;
use isotherm_proto::internal::{ListRoutesRequest, ListRoutesResponse};
use isotherm_transport::channel;
use isotherm_types::{KeyRange, NodeId, RangeDescriptor, limits};
use std::time::Duration;
use tonic::transport::Channel;

/// Nodes asked at a time.
const AT_ONCE: usize = 8;
const TIMEOUT: Duration = Duration::from_millis(500);
/// Ranges asked for of each.
const ROUTES: u32 = 64;

impl Router {
    /// A channel to `address`, shared by all who use it. It reconnects by itself.
    pub fn channel(&self, address: &str) -> Result<Channel, isotherm_transport::TransportError> {
        let mut channels = self.channels.lock();
        if let Some(known) = channels.get(address) {
            return Ok(known.clone());
        }
        let made = channel(address)?;
        channels.insert(address.to_owned(), made.clone());
        Ok(made)
    }

    /// Asks nodes where the ranges of `span` are, until one of them knows that of its first key;
    /// whether one did.
    pub(super) async fn fetch_from_nodes(&self, span: &KeyRange) -> bool {
        let mut nodes = self.addresses();
        fastrand::shuffle(&mut nodes);
        for some in nodes.chunks(AT_ONCE) {
            let asked = some.iter().map(|(_, address)| self.ask_for_routes(address, span));
            let answers = futures::future::join_all(asked).await.into_iter().flatten();
            self.take_routes(answers);
            if self.cached(span.start()).is_some() {
                return true;
            }
        }
        false
    }

    async fn ask_for_routes(&self, address: &str, span: &KeyRange) -> Option<ListRoutesResponse> {
        let mut rpc = RangeServiceClient::new(self.channel(address).ok()?)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
        let cluster_id = self.cluster();
        let request = ListRoutesRequest { cluster_id, span: Some(span.into()), limit: ROUTES };
        let answer = tokio::time::timeout(TIMEOUT, rpc.list_routes(request)).await;
        let answer = answer.ok()?.ok()?.into_inner();
        (answer.cluster_id == cluster_id || cluster_id == 0).then_some(answer)
    }

    fn take_routes(&self, answers: impl Iterator<Item = ListRoutesResponse>) {
        let mut told: Vec<(RangeDescriptor, u64, NodeId)> = Vec::new();
        for answer in answers {
            self.note_addresses(&answer.nodes, false);
            for location in answer.ranges {
                let descriptor = location.descriptor.and_then(|d| d.try_into().ok());
                let leader = NodeId(location.leader_node);
                told.extend(descriptor.map(|d| (d, location.leader_term, leader)));
            }
        }
        // What is learned last stays.
        told.sort_by_key(|(d, term, _)| (d.epoch.version, d.epoch.conf_ver, *term));
        for (descriptor, _, leader) in told {
            self.learn(descriptor, leader);
        }
    }
}
