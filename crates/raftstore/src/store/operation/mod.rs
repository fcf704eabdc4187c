//! Operations on one range, one file each.

mod checksum;
mod read;
mod split;
mod transfer_leader;
mod write;
