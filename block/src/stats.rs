//! What a drive did, as `query-blockstats` shows it.

use crate::request::Op;
use std::time::Instant;

/// Counts of one kind of request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Bytes done.
    pub bytes: u64,
    /// Requests done.
    pub operations: u64,
    /// Of those, how many were done together with one before them.
    pub merged: u64,
    /// Time they took together, in ns.
    pub total_time_ns: u64,
    /// Requests that failed on the host.
    pub failed: u64,
    /// Requests that made no sense (beyond the end).
    pub invalid: u64,
}

/// Counts of one drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads.
    pub rd: Count,
    /// Writes.
    pub wr: Count,
    /// Discards.
    pub unmap: Count,
    /// Flushes.
    pub flush: Count,
    /// End of the highest byte written.
    pub wr_highest_offset: u64,
    /// When the last request ended.
    pub last: Option<Instant>,
}

impl Stats {
    /// The counts `op` belongs to.
    pub fn of(&mut self, op: &Op) -> &mut Count {
        match op {
            Op::Read { .. } | Op::ReadInto(_) => &mut self.rd,
            Op::Write { .. } | Op::WriteFrom { .. } | Op::WriteZeroes { .. } => &mut self.wr,
            Op::Discard { .. } => &mut self.unmap,
            Op::Flush => &mut self.flush,
        }
    }
}
