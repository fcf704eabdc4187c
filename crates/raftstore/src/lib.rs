//! Consensus: replicas of ranges, and the meta service's own group, over openraft.

mod command;
mod entry_codec;
mod group;
mod log_store;
mod network;
mod sender;
mod type_config;

pub use group::{Group, GroupError, GroupOptions, Leadership, Machine};
pub use sender::{
    FrameHeader, FrameReceiver, FrameSink, FrameSource, PeerSender, SendError,
};
