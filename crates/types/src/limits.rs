//! Limits, enforced at the edge (client, gateway, range leader) with an error that names them.

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Largest request: keys and values of all its operations together, in bytes.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest message on any connection, in bytes: a request and its framing.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most operations in one batch.
pub const BATCH_OPS_MAX: usize = 16 * 1024;
/// Most keys in one page of a scan.
pub const SCAN_PAGE_KEYS_MAX: u32 = 10_000;
/// Most bytes of keys and values in one page of a scan.
pub const SCAN_PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Most ranges that a cluster is bootstrapped with.
pub const BOOTSTRAP_RANGES_MAX: usize = 10_000;
