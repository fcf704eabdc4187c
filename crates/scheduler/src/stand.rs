//! How one node stands, with everything that was ordered counted as if it were done.

use crate::{Intent, Liveness, NodeView, Settings};
use isotherm_types::NodeId;

/// One node in one pass.
#[derive(Debug)]
pub(crate) struct Stand<'a> {
    /// What is known of it.
    pub view: &'a NodeView,
    /// Whether leaders may be handed to it.
    pub may_lead: bool,
    /// Whether it may get replicas, its disk apart.
    pub may_receive: bool,
    /// Cores that the ranges cost which it leads.
    pub cores: f64,
    /// How many ranges it leads.
    pub leaders: usize,
    /// How many replicas it has or gets.
    pub replicas: usize,
    /// Replicas on the way to it.
    pub incoming: usize,
    /// Replicas on the way from ranges that it leads: the leader is who sends them.
    pub outgoing: usize,
    /// Leaders on the way from it.
    pub handing: usize,
    /// Bytes used on its disk.
    pub used_bytes: u64,
    /// Its value of each label, as a number, most significant label first.
    pub labels: Vec<u32>,
}

impl<'a> Stand<'a> {
    /// Of a node that nothing is known to be on yet.
    pub fn new(view: &'a NodeView) -> Self {
        let is_up = view.liveness == Liveness::Up;
        let serves = is_up && view.intent == Intent::Active && !view.is_read_only;
        Self {
            view,
            may_lead: serves,
            may_receive: serves,
            cores: 0.0,
            leaders: 0,
            replicas: 0,
            incoming: 0,
            outgoing: 0,
            handing: 0,
            used_bytes: view.disk_total_bytes.saturating_sub(view.disk_free_bytes),
            labels: Vec::new(),
        }
    }

    /// Its id.
    pub fn id(&self) -> NodeId {
        self.view.id
    }

    /// What it may use, in cores; never nought.
    pub fn capacity(&self) -> f64 {
        self.view.capacity_cores.max(0.01)
    }

    /// What its leaders cost, as a share of what it may use.
    pub fn heat(&self) -> f64 {
        self.cores / self.capacity()
    }

    /// The share of its disk that is used.
    pub fn disk(&self) -> f64 {
        self.used_bytes as f64 / self.view.disk_total_bytes.max(1) as f64
    }

    /// Whether its disk has no room for `bytes` more.
    pub fn is_full_for(&self, bytes: u64, settings: &Settings) -> bool {
        let then =
            self.used_bytes.saturating_add(bytes) as f64 / self.view.disk_total_bytes.max(1) as f64;
        then > settings.disk_full
    }

    /// Whether it is gone for good, as far as that can be told.
    pub fn is_dead(&self, now_ms: u64, settings: &Settings) -> bool {
        self.silent_ms(now_ms).is_some_and(|silent| silent >= settings.dead_after_ms)
    }

    /// How long nothing was heard of it, if it is down.
    pub fn silent_ms(&self, now_ms: u64) -> Option<u64> {
        match self.view.liveness {
            Liveness::Down { since_ms } => Some(now_ms.saturating_sub(since_ms)),
            Liveness::Up | Liveness::Unknown => None,
        }
    }
}
