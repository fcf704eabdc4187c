//! The directory of one process: its format, its lock, its identity, its last start, and the room left
//! in it.

mod damage;
mod data_dir;
mod identity;
mod last_start;
mod space;

pub use damage::Damage;
pub use data_dir::DataDir;
pub use identity::Identity;
pub use last_start::{KnownPeer, LastStart, Place};
pub use space::{DiskSpace, free_space};
