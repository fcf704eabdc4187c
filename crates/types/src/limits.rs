//! Limits, enforced at the edge (client, gateway, range leader) with an error that names them.

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Most keys of one read of several keys through the public API.
pub const GET_MANY_KEYS_MAX: usize = 1000;
/// Values that lost conditions met, and texts, in the answer to a batch, in bytes.
pub const OUTCOMES_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Longest text about one write of a batch, in bytes.
pub const OUTCOME_BYTES_MAX: usize = 256;
/// Largest request: keys and values of all its operations together, in bytes.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest message on any connection, in bytes: a request and its framing.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most operations in one batch.
pub const BATCH_OPS_MAX: usize = 16 * 1024;
/// Most keys in one page of a scan.
pub const SCAN_PAGE_KEYS_MAX: u32 = 10_000;
/// Most bytes of keys and values in one page of a scan.
pub const SCAN_PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Most ranges that a cluster is bootstrapped with.
pub const BOOTSTRAP_RANGES_MAX: usize = 10_000;
/// Longest bound of a span that is read, in bytes: cuts of a span can be a little longer than keys.
pub const BOUND_BYTES_MAX: usize = 2 * KEY_BYTES_MAX;
/// Most keys that a range is cut at at once.
pub const SPLIT_KEYS_MAX: usize = 256;
/// Most ranges in a cluster. Beyond it the meta service gives no ids for new ones.
pub const RANGES_MAX: usize = 100_000;
/// Most nodes that a cluster knows, those included that were decommissioned.
pub const NODES_MAX: usize = 2_000;
/// Most members of the meta service.
pub const MEMBERS_MAX: usize = 9;
/// Most replicas of a range, those included that come or go.
pub const REPLICAS_MAX: usize = 16;
/// Longest address of a process (`host:port`), in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Most labels of a node.
pub const LABELS_MAX: usize = 64;
/// Longest name or value of a label, and longest name of a software's version, in bytes.
pub const LABEL_BYTES_MAX: usize = 256;
/// Names and values of all labels of a node together, in bytes.
pub const LABELS_BYTES_MAX: usize = 4 * 1024;
/// Longest name or value of a setting, in bytes.
pub const SETTING_BYTES_MAX: usize = 256;
/// Longest text of an error, of a reason or of a note for people, in bytes. It travels in the headers of
/// an answer too, which clients bound at 16 KiB or less, and there a byte can take three.
pub const TEXT_BYTES_MAX: usize = 2 * 1024;
/// Largest command of the meta service in its log, in bytes: it travels as one message.
pub const META_COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Largest payload of one frame or one chunk of a snapshot between processes: a message less its framing.
pub const PAYLOAD_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 64 * 1024;
/// Ranges, replicas and loads that one answer lists, in bytes; one more may begin below it.
pub const LISTED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Routes that a node gives at a time.
pub const ROUTES_MAX: usize = 256;
/// Operations that one answer lists.
pub const OPERATIONS_LISTED_MAX: usize = 200;
/// Hot ranges that one answer lists.
pub const HOT_MAX: usize = 1000;
/// Descriptors that one heartbeat reports, in number and in bytes; one more may begin below them.
pub const REPORTS_MAX: usize = 2000;
/// See [`REPORTS_MAX`].
pub const REPORTS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Loads that one heartbeat reports, in bytes; one more may begin below it.
pub const LOADS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Keys of one range's load, in bytes.
pub const SAMPLE_BYTES_MAX: usize = 32 * 1024;
/// Ranges that one heartbeat names as gone.
pub const GONE_MAX: usize = 10_000;
/// Ranges whose replicas cannot be read, that one heartbeat names and that are kept of a node.
pub const DAMAGED_RANGES_MAX: usize = 100;
/// Descriptors that prove replicas removed, in one answer to a heartbeat, in bytes; one more may begin
/// below it.
pub const REMOVED_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Descriptors that an error names, beside its text.
pub const ERROR_DESCRIPTORS_MAX: usize = 8;

/// Cuts `text` to [`TEXT_BYTES_MAX`], at the boundary of a character, and says so by its end.
pub fn cut_text(text: &mut String) {
    cut_to(text, TEXT_BYTES_MAX);
}

/// The same to `max` bytes.
pub fn cut_to(text: &mut String, max: usize) {
    const END: &str = "…";
    if text.len() > max {
        let to = max.saturating_sub(END.len());
        let at = (0..=to).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(at.unwrap_or(0));
        text.push_str(END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_one_byte_above_the_limit() {
        let mut fits = "x".repeat(TEXT_BYTES_MAX);
        cut_text(&mut fits);
        assert_eq!(fits, "x".repeat(TEXT_BYTES_MAX));
        for long in ["x".repeat(TEXT_BYTES_MAX + 1), "ß".repeat(TEXT_BYTES_MAX)] {
            let mut cut = long.clone();
            cut_text(&mut cut);
            assert!(cut.len() <= TEXT_BYTES_MAX && cut.len() > TEXT_BYTES_MAX - 4);
            assert!(cut.strip_suffix('…').is_some_and(|kept| long.starts_with(kept)));
        }
    }
}
