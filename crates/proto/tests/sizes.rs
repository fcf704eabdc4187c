//! Every message of the descriptor set has a row in `docs/sizes.md` with its largest size.
#![allow(missing_docs, clippy::unwrap_used)]

use isotherm_proto::sizes::{Bound, FIELDS, WHOLE};
use isotherm_types::limits::MESSAGE_BYTES_MAX;
use isotherm_types::sizes::{SizeRow, with_rows};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use std::collections::{BTreeMap, BTreeSet};

const VARINT: u64 = u64::MAX;

fn pool() -> DescriptorPool {
    DescriptorPool::decode(isotherm_proto::DESCRIPTORS).unwrap()
}

/// Every message but the entries of maps, which are parts of a field.
fn messages(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    pool.all_messages().filter(|m| !m.is_map_entry()).collect()
}

fn varint_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

fn tag_bytes(field: &FieldDescriptor) -> usize {
    varint_bytes(u64::from(field.number()) << 3)
}

fn sized(bytes: usize) -> usize {
    varint_bytes(bytes as u64) + bytes
}

struct Sizes {
    bounds: BTreeMap<&'static str, Bound>,
    whole: BTreeMap<&'static str, usize>,
    /// Fields without a bound.
    missing: BTreeSet<String>,
}

impl Sizes {
    fn new() -> Self {
        Self {
            bounds: FIELDS.iter().map(|(field, bound, _)| (*field, *bound)).collect(),
            whole: WHOLE.iter().map(|(message, bytes, _)| (*message, *bytes)).collect(),
            missing: BTreeSet::new(),
        }
    }

    /// Bytes of a message of this type, at most.
    fn of(&mut self, message: &MessageDescriptor) -> usize {
        let fields = self.fields(message);
        self.whole.get(message.full_name()).copied().unwrap_or(fields)
    }

    /// The same by its fields alone. Of the fields of a oneof only the largest counts.
    fn fields(&mut self, message: &MessageDescriptor) -> usize {
        let mut alternatives: BTreeMap<String, usize> = BTreeMap::new();
        let mut bytes = 0_usize;
        for field in message.fields() {
            let of_field = self.field(&field);
            match field.containing_oneof() {
                Some(oneof) => {
                    let most = alternatives.entry(oneof.full_name().to_owned()).or_default();
                    *most = (*most).max(of_field);
                }
                None => bytes += of_field,
            }
        }
        bytes + alternatives.values().sum::<usize>()
    }

    /// Bytes of one value, with its length where it has one.
    fn value(&mut self, field: &FieldDescriptor) -> Option<usize> {
        Some(match field.kind() {
            Kind::Bool | Kind::Enum(_) => 1,
            Kind::Uint32 => 5,
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => 8,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => 4,
            Kind::Uint64 | Kind::Int64 | Kind::Sint64 | Kind::Int32 | Kind::Sint32 => 10,
            Kind::Message(message) => sized(self.of(&message)),
            Kind::String | Kind::Bytes => return None,
        })
    }

    fn field(&mut self, field: &FieldDescriptor) -> usize {
        // Maps are bounded as a whole.
        let value = if field.is_map() { None } else { self.value(field) };
        let tag = tag_bytes(field);
        let is_many = field.is_list() || field.is_map();
        if let (Some(value), false) = (value, is_many) {
            return tag + value;
        }
        match (self.bounds.get(field.full_name()).copied(), is_many) {
            (Some(Bound::Bytes(max)), false) => tag + sized(max),
            (Some(Bound::Items(count)), true) if value.is_some() => {
                let value = value.unwrap();
                if field.is_packed() { tag + sized(count * value) } else { count * (tag + value) }
            }
            (Some(Bound::Texts(count, max)), true) => count * (tag + sized(max)),
            (Some(Bound::Within(bytes)), true) => bytes,
            // Of many small things the framing is a part.
            (Some(Bound::Cut(bytes)), true) => {
                let one = value.map_or(0, |value| tag + value);
                one.max(bytes + bytes / 4)
            }
            (_, _) => {
                self.missing.insert(field.full_name().to_owned());
                0
            }
        }
    }
}

/// What bounds the fields of a message, in words.
fn why(message: &MessageDescriptor) -> String {
    if let Some((_, _, why)) = WHOLE.iter().find(|(name, _, _)| *name == message.full_name()) {
        return (*why).to_owned();
    }
    let mut reasons = Vec::new();
    for field in message.fields() {
        let name = field.name();
        let Some((_, bound, why)) = FIELDS.iter().find(|(f, _, _)| *f == field.full_name()) else {
            continue;
        };
        reasons.push(match bound {
            Bound::Bytes(max) => format!("`{name}` {max} B ({why})"),
            Bound::Items(count) => format!("`{name}` {count} × ({why})"),
            Bound::Texts(count, max) => format!("`{name}` {count} × {max} B ({why})"),
            Bound::Cut(bytes) => format!("`{name}` cut at {bytes} B, or one alone ({why})"),
            Bound::Within(bytes) => format!("`{name}` {bytes} B together ({why})"),
        });
    }
    let nested: BTreeSet<_> = message
        .fields()
        .filter(|field| !field.is_list() && !field.is_map())
        .filter_map(|field| match field.kind() {
            Kind::Message(nested) => Some(format!("`{}`", nested.name())),
            _ => None,
        })
        .collect();
    if !nested.is_empty() {
        let nested: Vec<_> = nested.into_iter().collect();
        reasons.push(format!("with {}", nested.join(", ")));
    }
    if reasons.is_empty() { "numbers".to_owned() } else { reasons.join("; ") }
}

#[test]
fn every_field_has_a_bound_and_every_bound_a_field() {
    let (pool, mut sizes) = (pool(), Sizes::new());
    for message in messages(&pool) {
        sizes.of(&message);
    }
    assert!(sizes.missing.is_empty(), "no row in FIELDS for {:#?}", sizes.missing);
    let messages = messages(&pool);
    let fields: BTreeSet<_> =
        messages.iter().flat_map(|m| m.fields()).map(|f| f.full_name().to_owned()).collect();
    for (field, _, _) in FIELDS {
        assert!(fields.contains(*field), "FIELDS names {field}, which does not exist");
    }
    assert_eq!(sizes.bounds.len(), FIELDS.len(), "a field has two rows");
    for (name, whole, _) in WHOLE {
        let message = messages.iter().find(|m| m.full_name() == *name);
        let message = message.unwrap_or_else(|| panic!("WHOLE names {name}, which does not exist"));
        let fields = sizes.fields(message);
        assert!(*whole < fields, "{name} has {fields} bytes anyway: it needs no row in WHOLE");
    }
}

#[test]
fn what_is_sent_fits_into_a_message() {
    let (pool, mut sizes) = (pool(), Sizes::new());
    for method in pool.services().flat_map(|s| s.methods().collect::<Vec<_>>()) {
        for message in [method.input(), method.output()] {
            let bytes = sizes.of(&message);
            assert!(bytes <= MESSAGE_BYTES_MAX, "{} has {bytes} bytes", message.full_name());
        }
    }
}

#[test]
fn the_document_has_a_row_for_every_message() {
    let (pool, mut sizes) = (pool(), Sizes::new());
    let row = |message: &MessageDescriptor| SizeRow {
        name: message.full_name().to_owned(),
        bytes_max: sizes.of(message),
        why: why(message),
    };
    let rows: Vec<_> = messages(&pool).iter().map(row).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sizes.md");
    let document = std::fs::read_to_string(path).unwrap();
    let wanted = with_rows(&document, "crates/proto", &rows).unwrap();
    if std::env::var_os("WRITE_SIZES").is_some() {
        std::fs::write(path, wanted).unwrap();
    } else {
        assert!(document == wanted, "write docs/sizes.md again: run this test with WRITE_SIZES=1");
    }
}

/// The largest message of a type on the wire; `None` if a part of it has no exact size.
fn largest(message: &MessageDescriptor, sizes: &Sizes) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut alternatives: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    if sizes.whole.contains_key(message.full_name()) {
        return None;
    }
    for field in message.fields() {
        let mut bytes = Vec::new();
        let one = || -> Option<Vec<u8>> {
            let mut value = Vec::new();
            match field.kind() {
                Kind::Bool | Kind::Enum(_) => value.push(1),
                Kind::Uint32 => put_varint(u64::from(u32::MAX), &mut value),
                Kind::Double => value.extend([0x3f; 8]),
                Kind::Message(nested) => {
                    let nested = largest(&nested, sizes)?;
                    put_varint(nested.len() as u64, &mut value);
                    value.extend(nested);
                }
                Kind::String | Kind::Bytes => {
                    let max = match sizes.bounds.get(field.full_name())? {
                        Bound::Bytes(max) | Bound::Texts(_, max) => *max,
                        _ => return None,
                    };
                    put_varint(max as u64, &mut value);
                    value.resize(value.len() + max, b'x');
                }
                _ => put_varint(VARINT, &mut value),
            }
            Some(value)
        };
        let wire_type = match field.kind() {
            Kind::Double => 1,
            Kind::Message(_) | Kind::String | Kind::Bytes => 2,
            _ => 0,
        };
        if field.is_list() || field.is_map() {
            let count = match sizes.bounds.get(field.full_name())? {
                Bound::Items(count) | Bound::Texts(count, _) => *count,
                _ => return None,
            };
            let value = one()?;
            if field.is_packed() {
                put_varint(u64::from(field.number()) << 3 | 2, &mut bytes);
                put_varint((count * value.len()) as u64, &mut bytes);
                bytes.extend(value.repeat(count));
            } else {
                let mut item = Vec::new();
                put_varint(u64::from(field.number()) << 3 | wire_type, &mut item);
                item.extend(value);
                bytes.extend(item.repeat(count));
            }
        } else {
            put_varint(u64::from(field.number()) << 3 | wire_type, &mut bytes);
            bytes.extend(one()?);
        }
        match field.containing_oneof() {
            Some(oneof) => {
                let most = alternatives.entry(oneof.full_name().to_owned()).or_default();
                if bytes.len() > most.len() {
                    *most = bytes;
                }
            }
            None => out.extend(bytes),
        }
    }
    out.extend(alternatives.into_values().flatten());
    Some(out)
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[test]
fn the_largest_message_of_a_type_is_as_large_as_its_row_says() {
    let (pool, mut sizes) = (pool(), Sizes::new());
    let mut exact = 0;
    for message in messages(&pool) {
        let Some(bytes) = largest(&message, &sizes) else { continue };
        assert_eq!(bytes.len(), sizes.of(&message), "{}", message.full_name());
        let read = DynamicMessage::decode(message.clone(), &bytes[..]).unwrap();
        assert_eq!(read.encoded_len(), bytes.len(), "{}", message.full_name());
        exact += 1;
    }
    assert!(exact > 60, "{exact} messages have an exact size");
}
