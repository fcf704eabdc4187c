//! The lines of a file, each bounded in bytes.

use std::collections::VecDeque;
use std::io::{self, BufRead};

/// Longest line that is kept: the largest value with every byte escaped as JSON does it, and its key.
pub const LINE_BYTES_MAX: usize = 16 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line without its `\n`.
#[derive(Debug, Clone)]
pub struct FileLine {
    /// From 1; every line counts, also one that is empty.
    pub number: u64,
    pub text: Vec<u8>,
    /// Its end was cut off: it is longer than [`LINE_BYTES_MAX`].
    pub is_cut: bool,
}

impl FileLine {
    /// The line without a `\r` at its end: files of other systems end their lines with both.
    pub fn without_return(&self) -> &[u8] {
        self.text.strip_suffix(b"\r").unwrap_or(&self.text)
    }
}

/// Reads a file line by line; lines can be given back.
pub struct FileLines<R> {
    input: R,
    number: u64,
    again: VecDeque<FileLine>,
}

impl<R: BufRead> FileLines<R> {
    pub fn new(input: R) -> Self {
        Self { input, number: 0, again: VecDeque::new() }
    }

    /// Gives lines back, to be read again in this order.
    pub fn read_again(&mut self, lines: Vec<FileLine>) {
        for line in lines.into_iter().rev() {
            self.again.push_front(line);
        }
    }

    /// The next line; `None` at the end of the file.
    pub fn next(&mut self) -> io::Result<Option<FileLine>> {
        if let Some(line) = self.again.pop_front() {
            return Ok(Some(line));
        }
        let (mut text, mut is_cut, mut is_any) = (Vec::new(), false, false);
        loop {
            let read = match self.input.fill_buf() {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if read.is_empty() {
                break;
            }
            is_any = true;
            let end = read.iter().position(|byte| *byte == b'\n');
            let part = read.get(..end.unwrap_or(read.len())).unwrap_or_default();
            let room = LINE_BYTES_MAX - text.len();
            is_cut |= part.len() > room;
            text.extend_from_slice(part.get(..room).unwrap_or(part));
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !is_any {
            return Ok(None);
        }
        self.number += 1;
        if self.number == 1 && text.starts_with(BYTE_ORDER_MARK) {
            text.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(Some(FileLine { number: self.number, text, is_cut }))
    }
}

/// Why a line that was cut is bad.
pub fn too_long() -> String {
    format!("the line is longer than {LINE_BYTES_MAX} bytes")
}
