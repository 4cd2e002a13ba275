//! One request to a drive, and what becomes of it.

use crate::data::Data;
use crate::guest::GuestMemory;
use std::io;
use std::sync::Arc;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads bytes.
    Read {
        /// Bytes.
        len: usize,
    },
    /// Reads into memory of the guest's. Of [`Outcome::data`] nothing comes.
    ReadInto(Arc<GuestMemory>),
    /// Writes what is in memory of the guest's.
    WriteFrom {
        /// The memory.
        memory: Arc<GuestMemory>,
        /// Stable before it is acknowledged.
        fua: bool,
    },
    /// Writes [`Request::data`].
    Write {
        /// Stable before it is acknowledged.
        fua: bool,
    },
    /// Makes a range read as zeros.
    WriteZeroes {
        /// Bytes.
        len: u64,
        /// The range may be given back to the host.
        unmap: bool,
        /// Stable before it is acknowledged.
        fua: bool,
    },
    /// Says that the contents of a range do not matter any more.
    Discard {
        /// Bytes.
        len: u64,
    },
    /// Makes all acknowledged writes stable.
    Flush,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub op: Op,
    /// First byte.
    pub offset: u64,
    /// What a write writes; empty otherwise.
    pub data: Data,
}

impl Request {
    /// Reads `len` bytes.
    pub fn read(offset: u64, len: usize) -> Self {
        Self { op: Op::Read { len }, offset, data: Data::default() }
    }

    /// Writes `data`.
    pub fn write(offset: u64, data: impl Into<Data>) -> Self {
        Self { op: Op::Write { fua: false }, offset, data: data.into() }
    }

    /// Reads into `memory`.
    pub fn read_into(offset: u64, memory: &Arc<GuestMemory>) -> Self {
        Self { op: Op::ReadInto(memory.clone()), offset, data: Data::default() }
    }

    /// Writes what is in `memory`; `fua`: stable before it is acknowledged.
    pub fn write_from(offset: u64, memory: &Arc<GuestMemory>, fua: bool) -> Self {
        Self { op: Op::WriteFrom { memory: memory.clone(), fua }, offset, data: Data::default() }
    }

    /// Discards a range.
    pub fn discard(offset: u64, len: u64) -> Self {
        Self { op: Op::Discard { len }, offset, data: Data::default() }
    }

    /// Makes writes stable.
    pub fn flush() -> Self {
        Self { op: Op::Flush, offset: 0, data: Data::default() }
    }

    /// Bytes of the range; 0 for a flush.
    pub fn len(&self) -> u64 {
        match &self.op {
            Op::Read { len } => *len as u64,
            Op::Write { .. } => self.data.len() as u64,
            Op::ReadInto(memory) | Op::WriteFrom { memory, .. } => memory.len(),
            Op::WriteZeroes { len, .. } | Op::Discard { len } => *len,
            Op::Flush => 0,
        }
    }

    /// Whether no byte is concerned.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it may change bytes.
    pub fn changes(&self) -> bool {
        !matches!(self.op, Op::Read { .. } | Op::ReadInto(_) | Op::Flush)
    }
}

/// How a request ended.
#[derive(Debug)]
pub struct Outcome {
    /// Whether it was done.
    pub result: io::Result<()>,
    /// What was read, zeros if that failed; of a write, the data that was given.
    pub data: Data,
}

/// Called once when a request has ended, on the thread that delivers (the main loop's) with no lock held.
pub type Done = Box<dyn FnOnce(Outcome) + Send>;
