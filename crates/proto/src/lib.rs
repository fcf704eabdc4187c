//! The wire format of Isotherm.
//!
//! `v1` is the public API (`isotherm.v1`), `internal` what the parts of one cluster say to each
//! other (`isotherm.internal.v1`). Conversions between messages and `isotherm-types` are in
//! `convert`, errors that travel in `error`.

mod convert;
mod error;
pub mod sizes;

pub use convert::ConvertError;
pub use error::{Retry, WireError};

#[allow(missing_docs, clippy::all, rust_2018_idioms)]
mod generated {
    pub mod v1 {
        tonic::include_proto!("isotherm.v1");
    }
    pub mod internal {
        tonic::include_proto!("isotherm.internal.v1");
    }
}

pub use generated::{internal, v1};

/// The encoded file descriptors of all services, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
