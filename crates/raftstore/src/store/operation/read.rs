//! Reads, with their deadline.

use crate::replica::{Page, PageRead, PointRead};
use crate::store::{RangeError, Store};
use isotherm_storage::Row;
use isotherm_types::RangeId;
use std::time::Duration;

fn late<T>(_: T) -> RangeError {
    RangeError::Unavailable("the read was not confirmed in time".into())
}

impl Store {
    /// Reads several keys of one range under one confirmation of leadership.
    pub async fn read_many(
        &self,
        range: RangeId,
        version: u64,
        reads: Vec<PointRead>,
        timeout: Duration,
    ) -> Result<Vec<Option<Row>>, RangeError> {
        let replica = self.find(range)?;
        let read = tokio::time::timeout(timeout, replica.read_many(version, &reads)).await;
        read.map_err(late)?.map_err(|e| self.with_neighbours(e))
    }

    /// Reads one key.
    pub async fn read(
        &self,
        range: RangeId,
        version: u64,
        read: PointRead,
        timeout: Duration,
    ) -> Result<Option<Row>, RangeError> {
        let mut rows = self.read_many(range, version, vec![read], timeout).await?;
        Ok(rows.pop().flatten())
    }

    /// Reads one page of a span.
    pub async fn scan(
        &self,
        range: RangeId,
        version: u64,
        read: PageRead,
        timeout: Duration,
    ) -> Result<Page, RangeError> {
        let replica = self.find(range)?;
        let page = tokio::time::timeout(timeout, replica.read_page(version, read)).await;
        page.map_err(late)?.map_err(|e| self.with_neighbours(e))
    }
}
