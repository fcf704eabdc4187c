//! Ports for test clusters: below the ephemeral range, so that no outgoing connection can take a
//! port while its owner is down for a restart; and in blocks held by a file lock, so that tests
//! that run at the same time, in other processes too, never share one.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

/// Number of ports in one block.
pub const PORTS_PER_BLOCK: u16 = 32;

/// The HTTP port of a process is its port plus this.
pub(crate) const HTTP_OFFSET: u16 = 1000;

const FIRST_PORT: u16 = 10_000;
/// Ports come in pairs (P and P + 1000), so a stretch of 2,000 ports holds 1,000 of them.
const STRETCH: u16 = 2 * HTTP_OFFSET;
const STRETCHES: u16 = 11;
const BLOCKS_PER_STRETCH: u16 = HTTP_OFFSET / PORTS_PER_BLOCK;

/// A block of ports that belongs to this process until it is dropped.
#[derive(Debug)]
pub struct PortBlock {
    base: u16,
    used: u16,
    _lock: File,
}

impl PortBlock {
    /// Takes a block that nobody else holds.
    pub fn take() -> anyhow::Result<Self> {
        let dir = env::temp_dir().join("isotherm-test-ports");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let blocks = STRETCHES * BLOCKS_PER_STRETCH;
        // Start at a place of our own, so that two tests seldom try the same block.
        let first = (process::id() % u32::from(blocks)) as u16;
        for block in (0..blocks).map(|i| (first + i) % blocks) {
            let base = FIRST_PORT
                + (block / BLOCKS_PER_STRETCH) * STRETCH
                + (block % BLOCKS_PER_STRETCH) * PORTS_PER_BLOCK;
            let path = dir.join(format!("{base}.lock"));
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .with_context(|| format!("open {}", path.display()))?;
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok(Self { base, used: 0, _lock: lock });
            }
        }
        bail!("all {blocks} blocks of test ports are taken")
    }

    /// A number that no other block has that is held at the same time.
    pub fn number(&self) -> u16 {
        (self.base - FIRST_PORT) / PORTS_PER_BLOCK
    }

    /// The next address of the block whose port, and whose HTTP port, nobody listens on.
    pub fn next_address(&mut self) -> anyhow::Result<SocketAddr> {
        while self.used < PORTS_PER_BLOCK {
            let port = self.base + self.used;
            self.used += 1;
            if is_free(port) && is_free(port + HTTP_OFFSET) {
                return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            }
        }
        bail!("no free port left in the block at {}", self.base)
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn blocks_held_at_the_same_time_share_no_port() {
        let mut blocks: Vec<PortBlock> = (0..5).map(|_| PortBlock::take().unwrap()).collect();
        let mut seen = BTreeSet::new();
        for block in &mut blocks {
            for _ in 0..3 {
                let port = block.next_address().unwrap().port();
                assert!(seen.insert(port) && seen.insert(port + HTTP_OFFSET));
            }
        }
    }

    #[test]
    fn every_port_is_below_the_ephemeral_range() {
        const { assert!(FIRST_PORT + STRETCHES * STRETCH <= 32_768) };
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let mut block = PortBlock::take().unwrap();
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, block.base)).unwrap();
        assert_ne!(block.next_address().unwrap().port(), block.base);
    }
}
