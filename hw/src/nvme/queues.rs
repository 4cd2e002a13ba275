//! Submission and completion queues as data. Source: NVM Express 1.4 §4.1.

use super::spec::Completion;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Most entries: those that a 16-bit number and the empty slot allow.
const MAX: u32 = 0x1_0000;

/// A submission queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sq {
    pub base: u64,
    /// Entries.
    pub size: u32,
    pub head: u32,
    pub tail: u32,
    pub cqid: u16,
    /// Commands that were fetched and have no completion in the queue yet.
    pub busy: u32,
}

/// A completion queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Cq {
    pub base: u64,
    /// Entries.
    pub size: u32,
    pub head: u32,
    pub tail: u32,
    pub phase: bool,
    pub vector: u16,
    pub interrupts: bool,
    /// Completions for which there was no room.
    pub waiting: VecDeque<Completion>,
}

impl Sq {
    pub fn new(base: u64, size: u32, cqid: u16) -> Self {
        Self { base, size, head: 0, tail: 0, cqid, busy: 0 }
    }

    /// Whether there is a command, and room for one at work.
    pub fn has_more(&self) -> bool {
        self.head != self.tail && self.busy < self.size
    }
}

impl Cq {
    pub fn new(base: u64, size: u32, vector: u16, interrupts: bool) -> Self {
        Self { base, size, head: 0, tail: 0, phase: true, vector, interrupts, waiting: VecDeque::new() }
    }

    pub fn is_full(&self) -> bool {
        (self.tail + 1) % self.size == self.head
    }

    pub fn is_empty(&self) -> bool {
        self.tail == self.head
    }

    /// An entry was written.
    pub fn advance(&mut self) {
        self.tail += 1;
        if self.tail == self.size {
            (self.tail, self.phase) = (0, !self.phase);
        }
    }
}

/// All queues, by number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Queues {
    pub sqs: BTreeMap<u16, Sq>,
    pub cqs: BTreeMap<u16, Cq>,
}

impl Queues {
    /// Whether a snapshot may hold this; `pairs`: highest number.
    pub fn is_possible(&self, pairs: u16, vectors: u16) -> bool {
        let fits = |size: u32, head: u32, tail: u32| (2..=MAX).contains(&size) && head < size && tail < size;
        self.sqs.iter().all(|(n, q)| {
            *n <= pairs && fits(q.size, q.head, q.tail) && q.busy <= q.size && self.cqs.contains_key(&q.cqid)
        }) && self.cqs.iter().all(|(n, q)| {
            *n <= pairs
                && fits(q.size, q.head, q.tail)
                && (q.vector < vectors || !q.interrupts)
                && q.waiting.iter().all(|c| self.sqs.contains_key(&c.sqid))
        })
    }

    /// Bits of the vectors of queues that have completions, for the line.
    pub fn pending_vectors(&self) -> u32 {
        let busy = self.cqs.values().filter(|q| q.interrupts && !q.is_empty() && q.vector < 32);
        busy.fold(0, |bits, q| bits | 1 << q.vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_keeps_a_slot_and_the_phase_turns() {
        let mut q = Cq::new(0, 3, 0, true);
        assert!(q.is_empty() && !q.is_full());
        q.advance();
        q.advance();
        assert!(q.is_full() && q.phase);
        q.head = 2;
        q.advance();
        assert_eq!((q.tail, q.phase, q.is_empty()), (0, false, false));
    }
}
