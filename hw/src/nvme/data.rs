//! Where a command's data is in guest memory. Source: NVM Express 1.4 §4.3 (physical region pages), §4.4 (scatter gather lists).
//! Not there: bit buckets, keyed descriptors.

use super::spec::{Command, Status};
use crate::virtio::ring::{Memory, Segment};

/// Most descriptors or entries of a command.
const MAX_SEGMENTS: usize = 0x1_0000;
/// Bytes of a descriptor of an SGL, of an entry of a list of pages.
const DESCRIPTOR: u64 = 16;
const ENTRY: u64 = 8;

/// The memory of `len` bytes that the data pointer of `c` names; `page`: bytes of a memory page.
pub(super) fn segments(mem: &mut dyn Memory, c: &Command, len: u64, page: u64) -> Result<Vec<Segment>, Status> {
    match c.psdt() {
        0 => pages(mem, c.dptr, len, page),
        1 | 2 => scattered(mem, c.dptr, len),
        _ => Err(Status::INVALID_FIELD),
    }
}

/// Adds a range; those that follow each other become one.
fn add(all: &mut Vec<Segment>, addr: u64, len: u64) -> Result<(), Status> {
    if all.len() >= MAX_SEGMENTS {
        return Err(Status::INVALID_FIELD);
    }
    let len = u32::try_from(len).map_err(|_| Status::INVALID_FIELD)?;
    match all.last_mut() {
        Some(s) if s.addr.checked_add(u64::from(s.len)) == Some(addr) && s.len.checked_add(len).is_some() => {
            s.len += len
        }
        _ => all.push(Segment { addr, len }),
    }
    Ok(())
}

fn pages(mem: &mut dyn Memory, (first, second): (u64, u64), len: u64, page: u64) -> Result<Vec<Segment>, Status> {
    let mut all = vec![];
    if len == 0 {
        return Ok(all);
    }
    let n = len.min(page - first % page);
    add(&mut all, first, n)?;
    let mut left = len - n;
    if left == 0 {
        return Ok(all);
    }
    if left <= page {
        if !second.is_multiple_of(page) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        add(&mut all, second, left)?;
        return Ok(all);
    }
    if !second.is_multiple_of(ENTRY) {
        return Err(Status::INVALID_PRP_OFFSET);
    }
    let mut at = second;
    while left > 0 {
        let mut entry = [0; ENTRY as usize];
        if !mem.read(at, &mut entry) {
            return Err(Status::DATA_TRANSFER_ERROR);
        }
        let addr = u64::from_le_bytes(entry);
        if !addr.is_multiple_of(page) {
            return Err(Status::INVALID_PRP_OFFSET);
        }
        let is_last = at % page == page - ENTRY;
        if is_last && left > page {
            // The list goes on in another page.
            if all.len() >= MAX_SEGMENTS {
                return Err(Status::INVALID_FIELD);
            }
            at = addr;
            continue;
        }
        let n = left.min(page);
        add(&mut all, addr, n)?;
        left -= n;
        at = at.wrapping_add(ENTRY);
    }
    Ok(all)
}

/// A descriptor: address, bytes, type.
fn descriptor(b: &[u8; DESCRIPTOR as usize]) -> (u64, u64, u8) {
    let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, _, _, _, kind] = *b;
    let addr = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
    (addr, u32::from_le_bytes([l0, l1, l2, l3]).into(), kind)
}

fn scattered(mem: &mut dyn Memory, dptr: (u64, u64), len: u64) -> Result<Vec<Segment>, Status> {
    const DATA: u8 = 0x00;
    const SEGMENT: u8 = 0x20;
    const LAST_SEGMENT: u8 = 0x30;
    let (mut all, mut seen, mut got) = (vec![], 0usize, 0u64);
    let mut first = [0; DESCRIPTOR as usize];
    crate::scsi::put(&mut first, 0, &dptr.0.to_le_bytes());
    crate::scsi::put(&mut first, 8, &dptr.1.to_le_bytes());
    // What is still to be looked at: descriptors, and whether the segment they are in is the last.
    let mut list = vec![first];
    let mut last = false;
    loop {
        let mut next = None;
        let count = list.len();
        for (n, d) in list.iter().enumerate() {
            let (addr, size, kind) = descriptor(d);
            match kind {
                DATA => {
                    let n = size.min(len - got.min(len));
                    if n < size {
                        return Err(Status::SGL_LENGTH_INVALID);
                    }
                    if n > 0 {
                        add(&mut all, addr, n)?;
                        got += n;
                    }
                }
                SEGMENT | LAST_SEGMENT => {
                    if last || n + 1 != count || size == 0 || !size.is_multiple_of(DESCRIPTOR) {
                        return Err(Status::INVALID_SGL_SEGMENT);
                    }
                    next = Some((addr, size / DESCRIPTOR, kind == LAST_SEGMENT));
                }
                _ => return Err(Status::SGL_TYPE_INVALID),
            }
        }
        let Some((addr, n, is_last)) = next else { break };
        seen = seen.saturating_add(usize::try_from(n).unwrap_or(usize::MAX));
        if seen > MAX_SEGMENTS {
            return Err(Status::INVALID_SGL_COUNT);
        }
        let mut bytes = vec![0; (n * DESCRIPTOR) as usize];
        if !mem.read(addr, &mut bytes) {
            return Err(Status::DATA_TRANSFER_ERROR);
        }
        list = bytes.chunks_exact(DESCRIPTOR as usize).filter_map(|c| c.try_into().ok()).collect();
        last = is_last;
    }
    if got < len { Err(Status::SGL_LENGTH_INVALID) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ram(Vec<u8>);
    impl Memory for Ram {
        fn read(&mut self, addr: u64, buf: &mut [u8]) -> bool {
            let at = addr as usize;
            self.0.get(at..at + buf.len()).map(|b| buf.copy_from_slice(b)).is_some()
        }
        fn write(&mut self, _: u64, _: &[u8]) -> bool {
            false
        }
        fn is_memory(&mut self, _: u64, _: u64, _: bool) -> bool {
            true
        }
    }

    fn command(flags: u8, dptr: (u64, u64)) -> Command {
        Command { opcode: 2, flags, cid: 0, nsid: 1, dptr, dw: [0; 6] }
    }

    fn ask(ram: &mut Ram, flags: u8, dptr: (u64, u64), len: u64) -> Result<Vec<(u64, u32)>, Status> {
        let all = segments(ram, &command(flags, dptr), len, 4096);
        all.map(|all| all.iter().map(|s| (s.addr, s.len)).collect())
    }

    #[test]
    fn pages_come_in_entries_and_lists() {
        let mut ram = Ram(vec![0; 0x3000]);
        assert_eq!(ask(&mut ram, 0, (0x10200, 0), 512), Ok(vec![(0x10200, 512)]));
        assert_eq!(ask(&mut ram, 0, (0x10200, 0x20000), 4096), Ok(vec![(0x10200, 0xe00), (0x20000, 0x200)]));
        assert_eq!(ask(&mut ram, 0, (0x10200, 0x20008), 4096), Err(Status::INVALID_PRP_OFFSET));
        // A list whose first page has room for two entries, the second of which names the next.
        ram.0[0x0ff0..0x0ff8].copy_from_slice(&0x3_0000u64.to_le_bytes());
        ram.0[0x0ff8..0x1000].copy_from_slice(&0x2000u64.to_le_bytes());
        ram.0[0x2000..0x2008].copy_from_slice(&0x5_0000u64.to_le_bytes());
        ram.0[0x2008..0x2010].copy_from_slice(&0x6_0000u64.to_le_bytes());
        let want = vec![(0x1_0000, 4096), (0x3_0000, 4096), (0x5_0000, 4096), (0x6_0000, 100)];
        assert_eq!(ask(&mut ram, 0, (0x1_0000, 0x0ff0), 3 * 4096 + 100), Ok(want));
        assert_eq!(ask(&mut ram, 0, (0x1_0000, 0x8000), 3 * 4096), Err(Status::DATA_TRANSFER_ERROR));
        // A list that goes on in itself ends.
        ram.0[0x0ff8..0x1000].copy_from_slice(&0u64.to_le_bytes());
        assert!(ask(&mut ram, 0, (0x1_0000, 0x0ff0), 1 << 40).is_err());
    }

    #[test]
    fn scattered_data_has_exactly_its_length() {
        let mut ram = Ram(vec![0; 0x1000]);
        assert_eq!(ask(&mut ram, 0x40, (0x5000, 512), 512), Ok(vec![(0x5000, 512)]));
        assert_eq!(ask(&mut ram, 0x40, (0x5000, 511), 512), Err(Status::SGL_LENGTH_INVALID));
        assert_eq!(ask(&mut ram, 0x40, (0x5000, 513), 512), Err(Status::SGL_LENGTH_INVALID));
        assert_eq!(ask(&mut ram, 0x40, (0x5000, 0x1000_0000_0000_0200), 512), Err(Status::SGL_TYPE_INVALID));
        for (at, addr, len) in [(0x100usize, 0x5000u64, 100u64), (0x110, 0x6000, 412)] {
            ram.0[at..at + 8].copy_from_slice(&addr.to_le_bytes());
            ram.0[at + 8..at + 16].copy_from_slice(&len.to_le_bytes());
        }
        let last = (0x100, 0x3000_0000_0000_0020);
        assert_eq!(ask(&mut ram, 0x40, last, 512), Ok(vec![(0x5000, 100), (0x6000, 412)]));
        // A segment in itself
        ram.0[0x100..0x108].copy_from_slice(&0x100u64.to_le_bytes());
        ram.0[0x108..0x110].copy_from_slice(&0x2000_0000_0000_0010u64.to_le_bytes());
        assert_eq!(ask(&mut ram, 0x40, (0x100, 0x2000_0000_0000_0010), 512), Err(Status::INVALID_SGL_COUNT));
    }
}
