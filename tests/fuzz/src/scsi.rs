//! SCSI commands to a disk and a CD, by a request queue of `virtio-scsi-pci`.

use crate::input::Input;
use crate::rig::{Function, Rig};

/// Longest input.
const MOST: usize = 8 << 10;
/// Queue for requests, and where its rings are: one page each.
const QUEUE: u64 = 2;
const RINGS: [u64; 3] = [0x1_0000, 0x1_1000, 0x1_2000];
/// Header and answer of a request, data to and from the device.
const HEADER: u64 = 0x2_0000;
const ANSWER: u64 = 0x2_1000;
const TO: u64 = 0x4_0000;
const FROM: u64 = 0x8_0000;
/// Bytes of a request (with 32 of the command) and of its answer (with 96 of sense data). Virtio 1.2 §5.6.6.1
const REQUEST: u32 = 51;
const ANSWER_LEN: u32 = 108;
/// Entries of the queue.
const SIZE: u16 = 16;

/// Makes the queue.
fn set_up(rig: &Rig, f: &Function) {
    let base = f.bars[4].0;
    for status in [0, 1, 3] {
        rig.store(base + 0x14, 1, status);
    }
    rig.store(base + 8, 4, 1);
    rig.store(base + 12, 4, 1); // VERSION_1
    rig.store(base + 0x14, 1, 11);
    rig.store(base + 0x16, 2, QUEUE);
    rig.store(base + 0x18, 2, SIZE.into());
    for (at, v) in [0x20, 0x28, 0x30].into_iter().zip(RINGS) {
        rig.store(base + at, 4, v);
        rig.store(base + at + 4, 4, 0);
    }
    rig.store(base + 0x1c, 2, 1);
    rig.store(base + 0x14, 1, 15);
    assert_eq!(rig.load(base + 0x14, 1), 15, "the device is ready");
}

/// Requests: unit and flags, the command, lengths of data, data.
pub fn scsi(data: &[u8]) {
    let mut input = Input::new(data, MOST);
    let rig = &mut Rig::new();
    let (disk, cd) = (rig.disk(), rig.disk());
    let pci = rig.function("virtio-scsi-pci", &[("num_queues", "1")]);
    rig.device("scsi-hd", &[("drive", &disk), ("scsi-id", "0"), ("lun", "0")]);
    rig.device("scsi-cd", &[("drive", &cd), ("scsi-id", "0"), ("lun", "1")]);
    let f = rig.start(pci);
    set_up(rig, &f);
    for n in 0..128u16 {
        if input.is_empty() {
            break;
        }
        let flags = input.byte();
        let cdb = input.take(16);
        let (out, back) = (input.word(), input.word());
        let mut header = vec![1, 0, 0x40, flags & 3, 0, 0, 0, 0];
        header.resize(19, 0);
        header.extend(cdb);
        header.resize(REQUEST as usize, 0);
        rig.write(HEADER, &header);
        if flags & 4 != 0 {
            let len = input.below(64);
            rig.write(TO, input.take(len));
        }
        let mut parts = vec![(HEADER, REQUEST, false)];
        if out != 0 {
            parts.push((TO, out.into(), false));
        }
        parts.push((ANSWER, ANSWER_LEN, true));
        if back != 0 {
            parts.push((FROM, back.into(), true));
        }
        for (i, (addr, len, write)) in (0u16..).zip(&parts) {
            let more = usize::from(i) + 1 < parts.len();
            let at = RINGS[0] + 16 * u64::from(i);
            rig.store(at, 8, *addr);
            rig.store(at + 8, 4, u64::from(*len));
            rig.store(at + 12, 2, u64::from(more) | u64::from(*write) << 1);
            rig.store(at + 14, 2, u64::from(i) + 1);
        }
        rig.store(RINGS[1] + 4 + 2 * u64::from(n % SIZE), 2, 0);
        rig.store(RINGS[1] + 2, 2, u64::from(n) + 1);
        rig.store(f.bars[4].0 + 0x3000 + 4 * QUEUE, 2, QUEUE);
        // Commands end one by one, but for those that are to meet.
        if flags & 8 == 0 {
            for _ in 0..64 {
                if rig.load(RINGS[2] + 2, 2) == u64::from(n) + 1 {
                    break;
                }
                rig.turn();
                rig.step(1_000_000);
            }
            assert_eq!(rig.load(f.bars[4].0 + 0x14, 1), 15, "the device is broken by a good request");
        }
    }
    rig.turn();
}
