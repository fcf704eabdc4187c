//! The answer of an aggregate as messages of the public API.

use super::refusal::refused;
use isotherm_aggregate::{Figure, Function, GroupAnswer};
use isotherm_client::AggregatedGroups;
use isotherm_proto::v1::aggregate_response::Part;
use isotherm_proto::v1::{self as pb, Reason};
use prost::Message;
use tonic::Status;

/// Bytes after which a message is full: thin clients take 4 MiB by default, and one group more may
/// have a name as long as a value.
const MESSAGE_BYTES: usize = 1 << 20;
/// Groups in one message: each takes some time to compute.
const MESSAGE_GROUPS: usize = 500;

/// An answer whose groups are still to be sent.
pub(super) struct Groups(AggregatedGroups);

impl Groups {
    pub fn new(left: AggregatedGroups) -> Self {
        Self(left)
    }

    /// The next message, and what is left; the last one has the totals.
    pub async fn next_message(self) -> Result<(pb::AggregateResponse, Option<Self>), Status> {
        // The figures of many groups take long: not on the async threads.
        let computed = tokio::task::spawn_blocking(move || self.compute()).await;
        computed.map_err(|e| refused(Reason::Internal, e.to_string()))
    }

    fn compute(mut self) -> (pb::AggregateResponse, Option<Self>) {
        let groups = take(&mut self.0);
        let (part, left) = if groups.is_empty() {
            let AggregatedGroups { ranges, rows, skipped, .. } = self.0;
            (Part::Totals(pb::AggregateTotals { ranges, rows, skipped }), None)
        } else {
            (Part::Groups(pb::AggregateGroups { groups }), Some(self))
        };
        (pb::AggregateResponse { part: Some(part) }, left)
    }
}

/// As many groups as go into one message.
fn take(groups: &mut impl Iterator<Item = GroupAnswer>) -> Vec<pb::AggregateGroup> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    while taken.len() < MESSAGE_GROUPS
        && bytes < MESSAGE_BYTES
        && let Some(group) = groups.next()
    {
        let group = aggregate_group(group);
        bytes += group.encoded_len() + 8;
        taken.push(group);
    }
    taken
}

fn aggregate_group(group: GroupAnswer) -> pb::AggregateGroup {
    let figure = |(function, figure): (Function, Figure)| pb::AggregateFigure {
        name: function.to_string(),
        digits: match figure {
            Figure::None => None,
            Figure::Number(digits) => Some(digits),
            Figure::Special(name) => Some(name.to_owned()),
        },
        approximate: matches!(function, Function::Distinct | Function::Quantile(_)),
    };
    pb::AggregateGroup {
        name: group.name.map(Into::into),
        rows: group.rows,
        skipped: group.skipped,
        figures: group.figures.into_iter().map(figure).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_by_bytes_and_by_groups() {
        let groups = |count: usize, name: usize| {
            let group = move |n: usize| GroupAnswer {
                name: Some(vec![n as u8; name]),
                rows: 1,
                skipped: 0,
                figures: vec![(Function::Count, Figure::Number("1".to_owned()))],
            };
            let mut left = (0..count).map(group);
            let mut messages = Vec::new();
            loop {
                let groups = take(&mut left);
                if groups.is_empty() {
                    return messages;
                }
                messages.push(pb::AggregateGroups { groups });
            }
        };
        let sizes = |messages: &[pb::AggregateGroups]| {
            messages.iter().map(Message::encoded_len).max().unwrap_or_default()
        };
        let long = groups(300, 30_000);
        assert!(long.len() >= 9 && sizes(&long) < 2 << 20, "{} of {}", long.len(), sizes(&long));
        assert_eq!(long.iter().map(|message| message.groups.len()).sum::<usize>(), 300);
        let longest = groups(3, 1 << 20);
        assert!(longest.len() == 3 && sizes(&longest) < 3 << 20);
        assert_eq!(groups(1_200, 3).len(), 3);
    }
}
