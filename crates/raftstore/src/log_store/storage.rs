//! openraft's side of the log: writing.

use super::state::Shared;
use super::{LogReader, LogView};
use crate::entry_codec::encode_message;
use crate::type_config::{Entry, IoFlushed, LogId, LogState, TypeConfig, Vote};
use isotherm_storage::LogOp;
use openraft::OptionalSend;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The log of one replica, as one consensus instance owns it.
pub struct LogStore {
    pub(super) shared: Arc<Shared>,
}

impl LogStore {
    /// A look at it for others.
    pub fn view(&self) -> LogView {
        LogView::new(self.shared.clone())
    }

    fn reader(&self) -> LogReader {
        LogReader::new(self.shared.clone())
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.reader().try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.reader().read_vote().await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState> {
        let state = self.shared.state.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (sender, done) = oneshot::channel();
        {
            let mut state = self.shared.state.lock();
            self.shared.check_owner(&state)?;
            self.shared.submit_committed(&mut state);
            self.shared.engine.submit(LogOp::Vote {
                replica: self.shared.key,
                bytes: encode_message(vote),
                done: Box::new(move |result| {
                    // An instance that is gone does not mind.
                    let _ = sender.send(result);
                }),
            });
        }
        let synced = done.await.map_err(|_| io::Error::other("the log engine has stopped"))?;
        synced.map_err(io::Error::other)?;
        self.shared.state.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        state.committed = committed;
        state.committed_unsaved = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.state.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.shared.append(entries.into_iter().collect(), callback)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.shared.truncate_after(last)
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.shared.purge(upto)
    }
}
