//! Rings in a small memory.

use super::*;

/// Memory from 0 on.
struct Ram(Vec<u8>);

impl Memory for Ram {
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> bool {
        let Some(from) = self.0.get(addr as usize..).and_then(|r| r.get(..buf.len())) else { return false };
        buf.copy_from_slice(from);
        true
    }
    fn write(&mut self, addr: u64, buf: &[u8]) -> bool {
        let Some(to) = self.0.get_mut(addr as usize..).and_then(|r| r.get_mut(..buf.len())) else { return false };
        to.copy_from_slice(buf);
        true
    }
    fn is_memory(&mut self, addr: u64, len: u64, _: bool) -> bool {
        addr.checked_add(len).is_some_and(|end| end <= self.0.len() as u64)
    }
}

const SIZE: u16 = 8;
const TABLE: u64 = 0x8000;
const SPLIT: Format = Format { packed: false, event_idx: false, notify_on_empty: false };
const PACKED: Format = Format { packed: true, event_idx: false, notify_on_empty: false };
const EVENTS: Format = Format { event_idx: true, ..SPLIT };

fn desc(ram: &mut Ram, table: u64, at: u16, addr: u64, len: u32, tail: [u16; 2]) {
    let mut b = addr.to_le_bytes().to_vec();
    b.extend(len.to_le_bytes());
    b.extend(tail.iter().flat_map(|w| w.to_le_bytes()));
    assert!(ram.write(table + 16 * u64::from(at), &b));
}

/// A queue with its rings in a memory of 64 KiB.
fn queue() -> (Queue, Ram) {
    let mut q = Queue::new(SIZE);
    (q.enabled, q.desc, q.driver, q.device) = (true, 0x1000, 0x2000, 0x3000);
    (q, Ram(vec![0; 0x1_0000]))
}

/// Makes descriptor `head` of a split ring available.
fn offer(q: &Queue, ram: &mut Ram, head: u16) {
    let at = ram.word(q.driver + 2).unwrap();
    ram.set_word(q.driver + 4 + 2 * u64::from(at % SIZE), head).unwrap();
    ram.set_word(q.driver + 2, at.wrapping_add(1)).unwrap();
}

#[test]
fn a_split_chain_goes_there_and_back() {
    let (mut q, mut ram) = queue();
    desc(&mut ram, q.desc, 3, 0x4000, 16, [NEXT, 5]);
    desc(&mut ram, q.desc, 5, 0x5000, 512, [WRITE | NEXT, 0]);
    desc(&mut ram, q.desc, 0, 0x6000, 1, [WRITE, 0]);
    assert_eq!(q.pop(&mut ram, SPLIT), Ok(None));
    offer(&q, &mut ram, 3);
    let c = q.pop(&mut ram, SPLIT).unwrap().unwrap();
    assert_eq!(c.readable, [Segment { addr: 0x4000, len: 16 }]);
    assert_eq!(c.writable, [Segment { addr: 0x5000, len: 512 }, Segment { addr: 0x6000, len: 1 }]);
    assert_eq!(q.pop(&mut ram, SPLIT), Ok(None));
    q.unpop(&c, SPLIT);
    assert_eq!(q.pop(&mut ram, SPLIT), Ok(Some(c.clone())));
    q.push(&mut ram, SPLIT, &[(&c, 513)]).unwrap();
    assert_eq!((ram.word(q.device + 2), ram.word(q.device + 4), ram.word(q.device + 8)), (Ok(1), Ok(3), Ok(513)));
    assert_eq!(q.wants_interrupt(&mut ram, SPLIT), Ok(true));
    ram.set_word(q.driver, 1).unwrap();
    assert_eq!(q.wants_interrupt(&mut ram, SPLIT), Ok(false));
    let on_empty = Format { notify_on_empty: true, ..SPLIT };
    assert_eq!(q.wants_interrupt(&mut ram, on_empty), Ok(true));
}

#[test]
fn bytes_are_found_across_segments() {
    let mut ram = Ram((0..=255).collect());
    let s = [Segment { addr: 10, len: 3 }, Segment { addr: 100, len: 2 }, Segment { addr: 50, len: 4 }];
    let mut buf = [0; 5];
    assert_eq!((total(&s), gather(&mut ram, &s, 2, &mut buf), buf), (9, 5, [12, 100, 101, 50, 51]));
    assert_eq!(scatter(&mut ram, &s, 7, &[1, 2, 3]), 2);
    assert_eq!((ram.0[51], ram.0[52], ram.0[53], ram.0[54]), (51, 1, 2, 54));
}

#[test]
fn indirect_tables_stand_for_chains() {
    let (mut q, mut ram) = queue();
    for format in [SPLIT, PACKED] {
        let links = if format.packed { [[0, NEXT], [0, WRITE]] } else { [[NEXT, 1], [WRITE, 0]] };
        desc(&mut ram, TABLE, 0, 0x4000, 8, links[0]);
        desc(&mut ram, TABLE, 1, 0x5000, 9, links[1]);
        if format.packed {
            q = queue().0;
            desc(&mut ram, q.desc, 0, TABLE, 32, [7, INDIRECT | 1 << 7]);
        } else {
            desc(&mut ram, q.desc, 2, TABLE, 32, [INDIRECT, 0]);
            offer(&q, &mut ram, 2);
        }
        let c = q.pop(&mut ram, format).unwrap().unwrap();
        assert_eq!((total(&c.readable), total(&c.writable), c.entries), (8, 9, 1));
        assert_eq!(c.id, if format.packed { 7 } else { 2 });
    }
}

/// What is done to a ring.
type Damage = &'static dyn Fn(&Queue, &mut Ram);

#[test]
fn a_driver_that_errs_is_told_apart() {
    let cases: [(Damage, RingError); 9] = [
        (&|q, r| desc(r, q.desc, 0, 0x4000, 8, [NEXT, 0]), RingError::Looped),
        (&|q, r| desc(r, q.desc, 0, 0x4000, 0, [0, 0]), RingError::Empty),
        (&|q, r| desc(r, q.desc, 0, 0xfff9, 8, [0, 0]), RingError::BadBuffer { addr: 0xfff9, len: 8 }),
        (&|q, r| desc(r, q.desc, 0, u64::MAX, 8, [0, 0]), RingError::BadBuffer { addr: u64::MAX, len: 8 }),
        (&|q, r| desc(r, q.desc, 0, 0x4000, 8, [NEXT, 9]), RingError::BadIndex(9)),
        (
            &|q, r| {
                desc(r, q.desc, 0, 0x4000, 8, [WRITE | NEXT, 1]);
                desc(r, q.desc, 1, 0x4000, 8, [0, 0]);
            },
            RingError::Order,
        ),
        (&|q, r| desc(r, q.desc, 0, TABLE, 24, [INDIRECT, 0]), RingError::BadTable),
        (
            &|q, r| {
                desc(r, q.desc, 0, TABLE, 16, [INDIRECT, 0]);
                desc(r, TABLE, 0, TABLE, 16, [INDIRECT, 0]);
            },
            RingError::BadTable,
        ),
        (&|q, r| r.set_word(q.driver + 2, 10).unwrap(), RingError::Moved { from: 0, to: 10 }),
    ];
    for (n, (damage, error)) in cases.iter().enumerate() {
        let (mut q, mut ram) = queue();
        offer(&q, &mut ram, 0);
        damage(&q, &mut ram);
        assert_eq!(q.pop(&mut ram, SPLIT), Err(*error), "case {n}");
    }
    let (mut q, mut ram) = queue();
    ram.set_word(q.driver + 2, 0xffff).unwrap();
    assert_eq!(q.pop(&mut ram, SPLIT), Err(RingError::Moved { from: 0, to: 0xffff }), "backwards");
    q.desc = u64::MAX - 8;
    ram.set_word(q.driver + 2, 1).unwrap();
    assert_eq!(q.pop(&mut ram, SPLIT), Err(RingError::NoMemory(u64::MAX - 8)));
    // A packed ring whose every entry says that there is another.
    let (mut q, mut ram) = queue();
    (0..SIZE).for_each(|n| desc(&mut ram, q.desc, n, 0x4000, 8, [0, NEXT | 1 << 7]));
    assert_eq!(q.pop(&mut ram, PACKED), Err(RingError::Looped));
}

#[test]
fn no_more_chains_than_entries_are_in_use() {
    let (mut q, mut ram) = queue();
    desc(&mut ram, q.desc, 0, 0x4000, 8, [0, 0]);
    for _ in 0..SIZE {
        offer(&q, &mut ram, 0);
        assert!(q.pop(&mut ram, SPLIT).unwrap().is_some());
    }
    offer(&q, &mut ram, 0);
    assert_eq!(q.pop(&mut ram, SPLIT), Err(RingError::TooMany));
}

#[test]
fn split_event_indices_say_when() {
    let (mut q, mut ram) = queue();
    desc(&mut ram, q.desc, 0, 0x4000, 8, [0, 0]);
    let event = q.driver + 4 + 2 * u64::from(SIZE);
    let mut wanted = vec![];
    ram.set_word(event, 2).unwrap();
    for _ in 0..5 {
        offer(&q, &mut ram, 0);
        let c = q.pop(&mut ram, EVENTS).unwrap().unwrap();
        q.push(&mut ram, EVENTS, &[(&c, 0)]).unwrap();
        wanted.push(q.wants_interrupt(&mut ram, EVENTS).unwrap());
    }
    // The first always; then when index 2 is passed.
    assert_eq!(wanted, [true, false, true, false, false]);
    assert_eq!(ram.word(q.device + 4 + 8 * u64::from(SIZE)), Ok(5), "the device waits for the next");
}

/// Makes the next entry of a packed ring available.
fn offer_packed(ram: &mut Ram, q: &Queue, at: u16, wrap: bool, flags: u16) {
    let bits = if wrap { 1 << 7 } else { 1 << 15 };
    desc(ram, q.desc, at, 0x4000, 8, [at + 100, flags | bits]);
}

#[test]
fn a_packed_ring_turns_round() {
    let (mut q, mut ram) = queue();
    let (mut at, mut wrap) = (0, true);
    for turn in 0..20u16 {
        // Three entries a chain: the ring's end is met in the middle.
        for n in 0..3 {
            let more = if n < 2 { NEXT } else { WRITE };
            offer_packed(&mut ram, &q, at, wrap, more);
            at += 1;
            if at == SIZE {
                (at, wrap) = (0, !wrap);
            }
        }
        let c = q.pop(&mut ram, PACKED).unwrap().unwrap();
        assert_eq!((c.readable.len(), c.writable.len(), c.entries), (2, 1, 3), "turn {turn}");
        assert_eq!(q.is_empty(&mut ram, PACKED), Ok(true));
        q.unpop(&c, PACKED);
        assert_eq!(q.pop(&mut ram, PACKED), Ok(Some(c.clone())));
        let used = q.entry_for_test();
        q.push(&mut ram, PACKED, &[(&c, 8)]).unwrap();
        let flags = ram.word(used + 14).unwrap();
        assert_eq!(flags & 1 << 7 != 0, flags & 1 << 15 != 0, "used");
        assert_eq!((ram.word(used + 8), ram.word(used + 12)), (Ok(8), Ok(c.id)));
        assert_eq!(q.wants_interrupt(&mut ram, PACKED), Ok(true));
        ram.set_word(q.driver + 2, 1).unwrap();
        assert_eq!(q.wants_interrupt(&mut ram, PACKED), Ok(false));
        ram.set_word(q.driver + 2, 0).unwrap();
    }
}

impl Queue {
    fn entry_for_test(&self) -> u64 {
        self.desc + 16 * u64::from(self.next_used)
    }
}

#[test]
fn packed_event_indices_say_when() {
    let (mut q, mut ram) = queue();
    let format = Format { event_idx: true, ..PACKED };
    ram.set_word(q.driver + 2, 2).unwrap();
    ram.set_word(q.driver, 3 | 0x8000).unwrap();
    let mut wanted = vec![];
    for at in 0..6 {
        offer_packed(&mut ram, &q, at, true, 0);
        let c = q.pop(&mut ram, format).unwrap().unwrap();
        q.push(&mut ram, format, &[(&c, 0)]).unwrap();
        wanted.push(q.wants_interrupt(&mut ram, format).unwrap());
    }
    assert_eq!(wanted, [true, false, false, true, false, false]);
}

#[test]
fn legacy_rings_follow_each_other() {
    let mut q = Queue::new(256);
    q.set_legacy_address(0x10_0000);
    assert_eq!((q.desc, q.driver, q.device, q.enabled), (0x10_0000, 0x10_1000, 0x10_2000, true));
    q.set_size(1025);
    q.set_size(0);
    assert_eq!(q.size, 256);
    q.set_legacy_address(u64::MAX << 12);
    q.reset();
    assert_eq!(q, Queue::new(256));
}

/// Random bytes everywhere: nothing but an answer or an error, and never more segments than are allowed.
#[test]
fn random_memory_ends_in_an_error_or_a_chain() {
    let mut seed = 0x1234_5678_9abc_def0u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..3000u32 {
        let (mut q, mut ram) = queue();
        q.set_size((random() % 1024) as u16 + 1);
        let format = Format { packed: random() & 1 != 0, event_idx: random() & 1 != 0, notify_on_empty: false };
        for at in [q.desc, q.driver, q.device, TABLE] {
            for n in 0..512 {
                // Small numbers and whole ones: flags, short links and addresses inside memory are likely.
                let v = random();
                let v = if v & 3 == 0 { v >> 8 } else { v >> 8 & 0x0007_0087_0000_ffff };
                _ = ram.write(at + 8 * n, &v.to_le_bytes());
            }
        }
        for _ in 0..4 {
            match q.pop(&mut ram, format) {
                Ok(Some(c)) => {
                    assert!(c.readable.len() + c.writable.len() <= usize::from(MAX_SIZE), "round {round}");
                    _ = q.push(&mut ram, format, &[(&c, 1)]);
                    _ = q.wants_interrupt(&mut ram, format);
                }
                Ok(None) | Err(_) => break,
            }
        }
    }
}
