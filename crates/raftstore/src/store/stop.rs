//! Stopping a store, in reverse of its start.

use super::Store;
use super::start::barrier;
use std::sync::Arc;
use std::time::Duration;

impl Store {
    /// Stops every replica and flushes. The log engine stays open: its owner closes it after this.
    pub async fn shutdown(self: &Arc<Self>) {
        self.ctx.stop.cancel();
        let replicas = self.all();
        let stops =
            replicas.iter().filter_map(|r| r.instance.load_full()).map(|instance| async move {
                let stopped = instance.raft.shutdown();
                let _ = tokio::time::timeout(Duration::from_secs(5), stopped).await;
            });
        use futures::StreamExt;
        futures::stream::iter(stops).buffer_unordered(64).collect::<Vec<()>>().await;
        self.ctx.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(10), self.ctx.tasks.wait()).await;
        barrier(&self.ctx).await;
        let data = self.ctx.data.clone();
        match tokio::task::spawn_blocking(move || data.flush()).await {
            Ok(Ok(())) => tracing::info!(replicas = replicas.len(), "store stopped"),
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "the last flush failed: the log has it all")
            }
            Err(_) => {}
        }
        self.ctx.data.stop_compactions();
    }
}
