//! The real store as a [`Target`]: one client of its own per workload client, so that each has its
//! own session, routing cache and connections.

use std::time::Duration;

use bytes::Bytes;
use isotherm_client::{Client, ClientError, ClientOptions, ErrorKind, ScanOptions};
use isotherm_types::KeyRange;

use crate::target::{CasAnswer, OpError, Target};

/// How long a client tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Gives up soon: many outcomes stay unknown, and late attempts go on behind its back.
    Short,
    /// Retries through most faults: what it retries must count once.
    Long,
    /// For final reads and checks, when no fault is left.
    Final,
}

impl Patience {
    fn timeouts(self) -> (Duration, Duration) {
        match self {
            Patience::Short => (Duration::from_millis(1500), Duration::from_millis(500)),
            Patience::Long => (Duration::from_secs(15), Duration::from_secs(2)),
            Patience::Final => (Duration::from_secs(10), Duration::from_secs(3)),
        }
    }
}

/// One client of a cluster.
#[derive(Clone)]
pub struct ClusterTarget {
    client: Client,
}

impl ClusterTarget {
    /// A client of the cluster whose meta service is at `meta`.
    pub fn connect(meta: &[String], patience: Patience) -> anyhow::Result<Self> {
        let (timeout, attempt_timeout) = patience.timeouts();
        let options = ClientOptions { meta: meta.to_vec(), timeout, attempt_timeout };
        Ok(Self { client: Client::connect(options)? })
    }

    /// The client itself.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// An internal error says nothing about where it struck, so it is not taken for definite.
fn op_error(error: ClientError) -> OpError {
    let text = format!("{:?}: {error}", error.kind);
    if error.is_definite() && error.kind != ErrorKind::Internal {
        OpError::Definite(text)
    } else {
        OpError::Unknown(text)
    }
}

/// Workloads write nothing but text; anything else shows up as a value that nobody wrote.
fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Target for ClusterTarget {
    async fn get(&self, key: &str) -> Result<Option<String>, OpError> {
        let row = self.client.get(key.to_owned()).await.map_err(op_error)?;
        Ok(row.map(|row| text(&row.value)))
    }

    async fn put(&self, key: &str, value: &str) -> Result<(), OpError> {
        self.client.put(key.to_owned(), value.to_owned()).await.map_err(op_error)?;
        Ok(())
    }

    async fn cas(
        &self,
        key: &str,
        expected: Option<&str>,
        new: &str,
    ) -> Result<CasAnswer, OpError> {
        let expected = expected.map(|value| Bytes::from(value.to_owned()));
        let outcome = self.client.cas(key.to_owned(), expected, new.to_owned()).await;
        let outcome = outcome.map_err(op_error)?;
        Ok(CasAnswer { applied: outcome.applied, current: outcome.current.as_ref().map(text) })
    }

    async fn incr(&self, key: &str, by: i64) -> Result<i64, OpError> {
        Ok(self.client.incr(key.to_owned(), by).await.map_err(op_error)?.value)
    }

    async fn scan_all(&self) -> Result<Vec<(String, String)>, OpError> {
        let options = ScanOptions { span: KeyRange::all(), ..ScanOptions::default() };
        let rows = self.client.scan(options).collect().await.map_err(op_error)?;
        Ok(rows.iter().map(|(key, row)| (text(key), text(&row.value))).collect())
    }
}
