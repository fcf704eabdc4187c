//! Damage that one replica alone cannot be blamed for: it keeps the node out.
//!
//! What is noted in the data directory stays noted through restarts, so that a node whose log lost votes,
//! or whose data cannot be compacted, does not come and go. Its ranges go on without it, and are built
//! again on other nodes when it has been away for long enough. An operator who had the disk checked says so
//! with `--clear-damage`: then every replica in the directory counts as one that lost what it acknowledged.

use crate::NodeError;
use isotherm_proto::WireError;
use isotherm_proto::internal::ReportDamageRequest;
use isotherm_proto::internal::error::Code;
use isotherm_raftstore::StoreError;
use isotherm_storage::{DataDir, Identity, OnFatal, StorageError};
use isotherm_transport::MetaLink;
use isotherm_types::limits::cut_text;
use std::sync::Arc;
use std::time::Duration;

const REPORT_TIMEOUT: Duration = Duration::from_secs(3);
const REPORT_PAUSE: Duration = Duration::from_millis(100);

/// The error that keeps the node out.
pub(crate) fn error(dir: &DataDir, what: String) -> NodeError {
    NodeError::Damaged { path: dir.path().to_owned(), what, identity: dir.identity() }
}

/// Says to the meta service that this node stays out, so that its status does. Not for long: the next start
/// says it again.
pub(crate) async fn report(meta: &[String], identity: Identity, what: &str) {
    let link = MetaLink::new(meta.to_vec());
    let mut what = what.to_owned();
    cut_text(&mut what);
    let request = ReportDamageRequest {
        cluster_id: identity.cluster.get(),
        node_id: identity.node.get(),
        what,
    };
    let ask = async || {
        let mut leader = link.leader().await?;
        let answer = leader.report_damage(request.clone()).await;
        let answer = answer
            .map_err(|status| WireError::new(Code::Unavailable, status.message().to_owned()))?;
        link.check(answer.into_inner().error)
    };
    let say = async {
        while let Err(error) = ask().await {
            tracing::debug!(%error, "the meta service does not hear of the damage yet");
            link.forget_leader();
            tokio::time::sleep(REPORT_PAUSE).await;
        }
    };
    if tokio::time::timeout(REPORT_TIMEOUT, say).await.is_err() {
        tracing::warn!("the meta service was not told of the damage");
    }
}

/// Refuses a directory that is noted as damaged, unless that is to be `cleared`.
pub(crate) fn check(dir: &DataDir, cleared: bool) -> Result<(), NodeError> {
    match dir.damage()? {
        Some(damage) if !cleared => Err(error(dir, damage.what)),
        _ => Ok(()),
    }
}

/// The store is open: what was to be cleared is.
pub(crate) fn cleared(dir: &DataDir) -> Result<(), NodeError> {
    if dir.damage()?.is_some() {
        tracing::warn!(path = %dir.path().display(), "the note of damage is cleared");
        dir.clear_damage()?;
    }
    Ok(())
}

/// Notes why the databases cannot be opened, if that is damage.
pub(crate) fn noted(dir: &DataDir, failed: NodeError) -> NodeError {
    let is_damage = match &failed {
        NodeError::Storage(error) => error.is_damage(),
        NodeError::Store(error) => StoreError::is_damage(error),
        _ => false,
    };
    if !is_damage {
        return failed;
    }
    let what = failed.to_string();
    if let Err(error) = dir.note_damage(&what) {
        tracing::error!(%error, "the damage cannot be noted");
    }
    error(dir, what)
}

/// Ends the process when the log cannot be written, as it would anyway, and notes it if the reason is
/// damage.
pub(crate) fn on_fatal(dir: Arc<DataDir>) -> OnFatal {
    Arc::new(move |error: &StorageError| {
        if error.is_damage()
            && let Err(error) = dir.note_damage(&error.to_string())
        {
            tracing::error!(%error, "the damage cannot be noted");
        }
        tracing::error!(%error, "writing the log failed: the process ends");
        std::process::abort();
    })
}
