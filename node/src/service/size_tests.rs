//! What a node takes in, at its largest and one byte, or one thing, more.

#![allow(clippy::unwrap_used)]
use super::{convert, kv_convert, range_stream};
use bytes::Bytes;
use isotherm_client::{CasOutcome, ClientError, ErrorKind, WriteResult};
use isotherm_proto::internal::{self as pb, write_op::Kind};
use isotherm_proto::v1;
use isotherm_types::Timestamp;
use isotherm_types::limits::{
    BATCH_OPS_MAX, BOUND_BYTES_MAX, GET_MANY_KEYS_MAX, KEY_BYTES_MAX, OUTCOME_BYTES_MAX,
    OUTCOMES_BYTES_MAX, REQUEST_BYTES_MAX, TEXT_BYTES_MAX, VALUE_BYTES_MAX,
};
use prost::Message;

fn text(bytes: usize) -> Bytes {
    vec![b'x'; bytes].into()
}

fn put(key: usize, value: usize) -> pb::WriteOp {
    pb::WriteOp { key: text(key), kind: Some(Kind::Put(text(value))) }
}

fn cas(key: usize, expected: usize, value: usize) -> pb::WriteOp {
    let cas = pb::Cas { expected: Some(text(expected)), value: text(value) };
    pb::WriteOp { key: text(key), kind: Some(Kind::Cas(cas)) }
}

fn batch(ops: Vec<pb::WriteOp>) -> pb::WriteBatch {
    let most = u64::MAX;
    pb::WriteBatch {
        session_issuer: most,
        session_number: most,
        seq: most,
        floor: most,
        birth: most,
        ops,
        txn: 0,
    }
}

/// What the table of sizes says of a message.
fn row(message: &str) -> usize {
    let found = isotherm_proto::sizes::WHOLE.iter().find(|(name, _, _)| *name == message);
    found.unwrap().1
}

#[test]
fn a_write_of_one_byte_more_is_refused() {
    const MIB: usize = 1 << 20;
    // Eight MiB of keys and values, and so many bytes more.
    let fill = |more: usize| {
        let mut ops = vec![put(100, VALUE_BYTES_MAX); 7];
        ops.push(put(100, MIB - 800 + more));
        batch(ops)
    };
    let bytes =
        |batch: &pb::WriteBatch| convert::write_request(batch.clone()).map(|w| w.size_bytes());
    let (most, more) = (fill(0), fill(1));
    assert!(bytes(&most).is_ok_and(|n| n == REQUEST_BYTES_MAX));
    let many = REQUEST_BYTES_MAX / BATCH_OPS_MAX;
    for (good, bad, limit) in [
        (
            batch(vec![put(KEY_BYTES_MAX, 1)]),
            batch(vec![put(KEY_BYTES_MAX + 1, 1)]),
            "limit is 4096",
        ),
        (
            batch(vec![put(1, VALUE_BYTES_MAX)]),
            batch(vec![put(1, VALUE_BYTES_MAX + 1)]),
            "limit is 1048576",
        ),
        (
            batch(vec![cas(1, 1, VALUE_BYTES_MAX)]),
            batch(vec![cas(1, 1, VALUE_BYTES_MAX + 1)]),
            "limit is 1048576",
        ),
        (
            batch(vec![put(1, 1); BATCH_OPS_MAX]),
            batch(vec![put(1, 1); BATCH_OPS_MAX + 1]),
            "1 to 16384 are allowed",
        ),
        (
            batch(vec![cas(1, REQUEST_BYTES_MAX - 2, 1)]),
            batch(vec![cas(1, REQUEST_BYTES_MAX - 1, 1)]),
            "limit is 8388608",
        ),
        (
            batch(vec![cas(255, many - 255 - 8, 8); BATCH_OPS_MAX]),
            batch(
                [
                    vec![cas(255, many - 255 - 8, 8); BATCH_OPS_MAX - 1],
                    vec![cas(256, many - 255 - 8, 8)],
                ]
                .concat(),
            ),
            "limit is 8388608",
        ),
        (most, more, "limit is 8388608"),
    ] {
        let (good_bytes, bad_bytes) = (good.encoded_len(), bad.encoded_len());
        assert!(bytes(&good).is_ok(), "{good_bytes} bytes, {limit}");
        assert!(good_bytes <= row("isotherm.internal.v1.WriteBatch"), "{good_bytes} bytes");
        let refused = bytes(&bad).unwrap_err().to_string();
        assert!(refused.contains(limit), "{bad_bytes} bytes: {refused}");
    }
}

#[test]
fn a_read_of_one_byte_more_is_refused() {
    let point =
        |bytes| convert::point_read(pb::ReadPoint { key: text(bytes), ..Default::default() });
    assert!(point(KEY_BYTES_MAX).is_ok() && point(KEY_BYTES_MAX + 1).is_err());
    let span =
        |bytes| convert::key_range(Some(pb::KeyRange { start: text(bytes), end: Bytes::new() }));
    assert!(span(BOUND_BYTES_MAX).is_ok());
    let refused = span(BOUND_BYTES_MAX + 1).unwrap_err().to_string();
    assert!(refused.contains("more than 8192 bytes"), "{refused}");
    let end = |bytes| kv_convert::key_range(Bytes::new(), text(bytes));
    assert!(end(BOUND_BYTES_MAX).is_ok());
    assert!(end(BOUND_BYTES_MAX + 1).unwrap_err().message().contains("more than 8192 bytes"));
    let reversed = kv_convert::key_range(text(BOUND_BYTES_MAX), text(1)).unwrap_err();
    assert!(reversed.message().len() <= TEXT_BYTES_MAX, "it travels in a header");
}

#[test]
fn a_query_of_one_byte_more_is_refused() {
    let parse = |change: &dyn Fn(&mut v1::AggregateRequest)| {
        let mut request =
            v1::AggregateRequest { figures: vec!["count".into()], ..Default::default() };
        change(&mut request);
        kv_convert::aggregate_options(request).map(drop).map_err(|e| e.message().to_owned())
    };
    let path = |bytes: usize| format!("json:{}", "p".repeat(bytes - 5));
    assert_eq!(parse(&|r| r.value = path(4 << 10)), Ok(()));
    assert!(parse(&|r| r.value = path((4 << 10) + 1)).unwrap_err().contains("4096"));
    assert_eq!(parse(&|r| r.group_by = vec![path(4 << 10)]), Ok(()));
    assert!(parse(&|r| r.group_by = vec![path((4 << 10) + 1)]).unwrap_err().contains("4096"));
    let filter = |bytes: usize| format!("value = '{}'", "v".repeat(bytes - 10));
    assert_eq!(parse(&|r| r.filter = filter(16 << 10)), Ok(()));
    assert!(parse(&|r| r.filter = filter((16 << 10) + 1)).unwrap_err().contains("16384"));
    let functions =
        |count: usize| (0..count).map(|n| format!("p{}.{n}", 1 + n % 90)).collect::<Vec<_>>();
    assert_eq!(parse(&|r| r.figures = functions(64)), Ok(()));
    assert!(parse(&|r| r.figures = functions(65)).is_err());
    let twice = parse(&|r| r.group_by = vec![path(20), path(20)]).unwrap_err();
    assert!(twice.contains("takes one at most"), "{twice}");
    assert!(parse(&|r| r.figures = vec!["count".into(); KEY_BYTES_MAX + 1]).is_err());
}

#[test]
fn an_identity_has_sixteen_bytes_and_a_read_of_several_keys_so_many() {
    let id = |bytes: usize| kv_convert::request_id(&vec![7; bytes], Some(1));
    assert!(id(16).unwrap().is_some());
    for bytes in [1, 15, 17, 1 << 20] {
        assert!(id(bytes).unwrap_err().message().contains(&format!("has {bytes} bytes")));
    }
    assert!(kv_convert::check_many(GET_MANY_KEYS_MAX).is_ok());
    for keys in [0, GET_MANY_KEYS_MAX + 1] {
        let refused = kv_convert::check_many(keys).unwrap_err();
        assert!(refused.message().contains("1 to 1000 are allowed"), "{refused}");
    }
}

#[test]
fn the_answer_to_a_batch_is_cut_one_byte_above_its_limits() {
    let lost = |bytes: usize| {
        Ok(WriteResult::Cas(CasOutcome {
            ts: Timestamp(1),
            applied: false,
            current: Some(text(bytes)),
            current_forgotten: false,
        }))
    };
    let values = |more: usize| {
        let half = OUTCOMES_BYTES_MAX / 2;
        let outcomes = kv_convert::write_outcomes(vec![lost(half), lost(half + more)]);
        let is_there = |outcome: &v1::WriteOutcome| match &outcome.kind {
            Some(v1::write_outcome::Kind::CompareAndSet(cas)) => cas.current.is_some(),
            other => panic!("{other:?}"),
        };
        outcomes.iter().map(is_there).collect::<Vec<_>>()
    };
    assert_eq!(values(0), [true, true]);
    assert_eq!(values(1), [true, false]);
    let message = |bytes: usize| {
        let error = Err(ClientError::new(ErrorKind::Unavailable, "x".repeat(bytes)));
        match kv_convert::write_outcomes(vec![error]).remove(0).kind {
            Some(v1::write_outcome::Kind::Failure(failure)) => failure.message,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(message(OUTCOME_BYTES_MAX).len(), OUTCOME_BYTES_MAX);
    assert!(!message(OUTCOME_BYTES_MAX).ends_with('…'));
    let cut = message(OUTCOME_BYTES_MAX + 1);
    assert!(cut.len() <= OUTCOME_BYTES_MAX && cut.ends_with('…'), "{cut}");
}

/// What older ranges answer can be larger than a message: then the answer says so.
#[test]
fn an_answer_of_one_byte_more_is_an_error() {
    use pb::range_response::Body;
    const MIB: usize = 1 << 20;
    let met = |bytes: usize| {
        let cas = pb::CasResult { current: Some(text(bytes)), ..Default::default() };
        pb::OpResult { kind: Some(pb::op_result::Kind::Cas(cas)), ts: None }
    };
    let answered = |last: usize| {
        let mut results = vec![met(MIB); 15];
        results.push(met(last));
        let result = pb::WriteBatchResult { results, ..Default::default() };
        range_stream::answer(1, Ok(Body::Write(result)))
    };
    // Between two sizes of the last value only its own bytes change.
    let framing = answered(MIB / 2).encoded_len() - MIB / 2;
    let largest = row("isotherm.internal.v1.WriteBatchResult");
    let fits = answered(largest - framing);
    assert_eq!(fits.encoded_len(), largest);
    assert!(matches!(fits.body, Some(Body::Write(_))));
    let beyond = answered(largest - framing + 1);
    assert!(beyond.encoded_len() < TEXT_BYTES_MAX);
    assert!(matches!(beyond.body, Some(Body::Error(_))), "{beyond:?}");
}
