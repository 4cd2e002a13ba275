//! Virtqueues by themselves, in memory that counts accesses.

use crate::input::Input;
use hw::virtio::ring::{Chain, Format, Memory, Queue};

/// Longest input.
const MOST: usize = 16 << 10;
/// Bytes of memory.
const SIZE: usize = 64 << 10;
/// Accesses to memory that taking one chain may cost: one each for 1024 descriptors, and a few.
const COST: u64 = 1024 + 16;

struct Ram {
    bytes: Vec<u8>,
    accesses: u64,
}

impl Memory for Ram {
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> bool {
        self.accesses += 1;
        let from = usize::try_from(addr).ok().and_then(|at| self.bytes.get(at..)).and_then(|r| r.get(..buf.len()));
        from.map(|from| buf.copy_from_slice(from)).is_some()
    }
    fn write(&mut self, addr: u64, buf: &[u8]) -> bool {
        self.accesses += 1;
        let to =
            usize::try_from(addr).ok().and_then(|at| self.bytes.get_mut(at..)).and_then(|r| r.get_mut(..buf.len()));
        to.map(|to| to.copy_from_slice(buf)).is_some()
    }
    fn is_memory(&mut self, addr: u64, len: u64, _: bool) -> bool {
        addr.checked_add(len).is_some_and(|end| end <= self.bytes.len() as u64)
    }
}

/// Format, size and places of a queue, its first memory, then steps: take, give back, ask for an interrupt, change memory.
pub fn rings(data: &[u8]) {
    let mut input = Input::new(data, MOST);
    let flags = input.byte();
    let format = Format { packed: flags & 1 != 0, event_idx: flags & 2 != 0, notify_on_empty: flags & 4 != 0 };
    let mut q = Queue::new(1024);
    q.enabled = true;
    q.set_size(input.word() % 2048);
    (q.desc, q.driver, q.device) = (input.word().into(), input.word().into(), input.word().into());
    if flags & 8 != 0 {
        q.desc = q.desc.wrapping_sub(0x8000);
    }
    let mut ram = Ram { bytes: vec![0; SIZE], accesses: 0 };
    let mut chains: Vec<Chain> = vec![];
    for _ in 0..256 {
        if input.is_empty() {
            break;
        }
        let before = ram.accesses;
        match input.byte() % 8 {
            0 | 1 => {
                let Ok(Some(chain)) = q.pop(&mut ram, format) else { continue };
                assert!(chain.readable.len() + chain.writable.len() <= 1024);
                for s in chain.readable.iter().chain(&chain.writable) {
                    assert!(s.len > 0 && ram.is_memory(s.addr, s.len.into(), true), "{s:?}");
                }
                chains.push(chain);
                assert!(chains.len() <= 1024, "more chains than entries");
            }
            2 => {
                if let Some(chain) = chains.pop() {
                    q.unpop(&chain, format);
                }
            }
            3 => {
                let n = input.below(4).min(chains.len());
                let done: Vec<Chain> = chains.drain(..n).collect();
                let len = input.long();
                _ = q.push(&mut ram, format, &done.iter().map(|c| (c, len)).collect::<Vec<_>>());
            }
            4 => _ = q.wants_interrupt(&mut ram, format),
            5 => _ = q.is_empty(&mut ram, format),
            _ => {
                let (at, len) = (usize::from(input.word()), input.below(64));
                let bytes = input.take(len);
                if let Some(to) = ram.bytes.get_mut(at..).and_then(|r| r.get_mut(..bytes.len())) {
                    to.copy_from_slice(bytes);
                }
            }
        }
        let cost = ram.accesses - before;
        assert!(cost <= COST, "{cost} accesses to memory");
        assert!(q.is_possible(1024));
    }
}
