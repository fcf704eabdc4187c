//! The Rust client of Isotherm.
//!
//! A [`Client`] routes every operation to the node that leads its range, repeats what can safely
//! be repeated, and takes care that a repeated write takes effect once. It is cheap to clone and
//! meant to be shared.
//!
//! ```no_run
//! # async fn example() -> Result<(), isotherm_client::ClientError> {
//! use isotherm_client::{Client, ClientOptions};
//! let client = Client::connect(ClientOptions::default())?;
//! client.put("greeting", "hello").await?;
//! let row = client.get("greeting").await?.expect("just written");
//! assert_eq!(row.value, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! | module | what |
//! |---|---|
//! | `operation` | reads, writes, batches, scans, aggregates: one file each |
//! | `router` | which node leads the range of a key, as far as is known |
//! | `node_link` | one long-lived stream per node |
//! | `session` | identities of writes |
//! | `flight` | lookups that many callers wait for |
//! | `retry` | pauses between attempts, and the budget that bounds them |
//! | `admin` | what operators ask |

mod admin;
mod client;
mod error;
mod flight;
mod limits;
mod node_link;
mod node_routes;
mod operation;
mod options;
mod retry;
mod router;
mod session;

pub use admin::{
    Admin, ClusterStatus, Decision, Explanation, HotRange, KeySample, Member, NodeStatus,
    Operation, OperationStatus, ProcessVersion, RangeLoad, RangeLocation, Rates, ReplicaChecksum,
    Setting, UpgradeStatus,
};
pub use client::Client;
pub use error::{ClientError, ErrorKind};
pub use isotherm_aggregate as aggregate;
pub use operation::{
    AggregateOptions, AggregateProgress, Aggregated, AggregatedGroups, CasOutcome, Deleted, Hold,
    Holding, Incremented, RangeWork, RequestId, Row, Scan, ScanOptions, ScanPage, Write,
    WriteResult,
};
pub use options::ClientOptions;
