//! How a client is set up.

use std::time::Duration;

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Members of the meta service, `host:port`.
    pub meta: Vec<String>,
    /// How long an operation is tried before it fails.
    pub timeout: Duration,
    /// How long one attempt may take before the next is made.
    pub attempt_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            meta: vec!["127.0.0.1:7400".to_owned()],
            timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(3),
        }
    }
}
