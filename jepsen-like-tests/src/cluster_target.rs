//! The real store as a [`Target`]: one client of its own per workload client, so that each has its
//! own session, routing cache and connections.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use isotherm_client::aggregate::{Figure, Function, GroupAnswer, QueryText};
use isotherm_client::{
    AggregateOptions, Client, ClientError, ClientOptions, ErrorKind, ScanOptions, Write,
    WriteResult,
};
use isotherm_types::KeyRange;

use crate::target::{CasAnswer, OpError, Target, Totals};

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

/// At which moment scans and totals look at the ranges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Reading {
    /// At one timestamp for all of them.
    #[default]
    Snapshot,
    /// One after the other, each as it is when its turn comes. No promise of the store covers this:
    /// it is how the checks of snapshots are seen to fail.
    PerRangeNewest,
}

/// One client of a cluster.
#[derive(Clone)]
pub struct ClusterTarget {
    client: Client,
    reading: Reading,
}

impl ClusterTarget {
    /// A client of the cluster whose meta service is at `meta`.
    pub fn connect(meta: &[String], patience: Patience) -> anyhow::Result<Self> {
        let (timeout, attempt_timeout) = patience.timeouts();
        let options = ClientOptions { meta: meta.to_vec(), timeout, attempt_timeout };
        Ok(Self { client: Client::connect(options)?, reading: Reading::default() })
    }

    /// The same client, reading differently.
    #[must_use]
    pub fn reading(self, reading: Reading) -> Self {
        Self { reading, ..self }
    }

    /// The client itself.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The parts of `span` that are read at one timestamp each.
    async fn parts(&self, span: &KeyRange) -> Result<Vec<KeyRange>, OpError> {
        if self.reading == Reading::Snapshot {
            return Ok(vec![span.clone()]);
        }
        let ranges = self.client.admin().ranges(span).await.map_err(op_error)?;
        Ok(ranges.iter().filter_map(|range| range.descriptor.span.intersect(span)).collect())
    }
}

/// A group, with its rows and sum.
fn group(answer: &GroupAnswer) -> Result<(String, (u64, i64)), OpError> {
    let sum = answer.figures.iter().find_map(|(function, figure)| match figure {
        Figure::Number(digits) if *function == Function::Sum => digits.parse().ok(),
        _ => None,
    });
    let unreadable = || OpError::Unknown(format!("not a sum of whole numbers: {answer:?}"));
    let name = text(&Bytes::from(answer.name.clone().unwrap_or_default()));
    Ok((name, (answer.rows - answer.skipped, sum.ok_or_else(unreadable)?)))
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
        Ok(CasAnswer {
            applied: outcome.applied,
            is_current_known: !outcome.current_forgotten,
            current: outcome.current.as_ref().map(text),
        })
    }

    async fn incr(&self, key: &str, by: i64) -> Result<i64, OpError> {
        Ok(self.client.incr(key.to_owned(), by).await.map_err(op_error)?.value)
    }

    async fn scan_all(&self) -> Result<Vec<(String, String)>, OpError> {
        let mut rows = Vec::new();
        for span in self.parts(&KeyRange::all()).await? {
            let options = ScanOptions { span, ..ScanOptions::default() };
            let part = self.client.scan(options).collect().await.map_err(op_error)?;
            rows.extend(part.iter().map(|(key, row)| (text(key), text(&row.value))));
        }
        Ok(rows)
    }

    async fn transfer(&self, from: &str, to: &str, by: i64) -> Result<(), OpError> {
        let writes = vec![Write::incr(from.to_owned(), -by), Write::incr(to.to_owned(), by)];
        let results = self.client.batch(writes).await.map_err(op_error)?;
        match results.iter().find(|result| !matches!(result, WriteResult::Incremented(_))) {
            None => Ok(()),
            Some(odd) => Err(OpError::Unknown(format!("a part was not done: {odd:?}"))),
        }
    }

    async fn totals(&self, span: &KeyRange, group_bytes: Option<usize>) -> Result<Totals, OpError> {
        let query = QueryText {
            functions: "sum,count".to_owned(),
            value: "text".to_owned(),
            group_by: group_bytes.map(|bytes| format!("prefix:{bytes}")).unwrap_or_default(),
            ..QueryText::default()
        };
        let mut totals =
            Totals { groups: group_bytes.map(|_| BTreeMap::new()), ..Totals::default() };
        for span in self.parts(span).await? {
            let options = AggregateOptions { span, query: query.clone(), at: None };
            let answer = self.client.aggregate(options).await.map_err(op_error)?.answer;
            for (name, (rows, sum)) in
                answer.groups.iter().map(group).collect::<Result<Vec<_>, _>>()?
            {
                totals.rows += rows;
                totals.total += sum;
                if let Some(groups) = &mut totals.groups {
                    let figures = groups.entry(name).or_default();
                    *figures = (figures.0 + rows, figures.1 + sum);
                }
            }
        }
        Ok(totals)
    }
}
