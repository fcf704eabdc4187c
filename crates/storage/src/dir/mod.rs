//! The directory of one process: its format, its lock, its identity, and the room left in it.

mod data_dir;
mod identity;
mod space;

pub use data_dir::DataDir;
pub use identity::Identity;
pub use space::{DiskSpace, free_space};
