//! SMBIOS 2.8 tables with a 32-bit entry point, as fw_cfg files `etc/smbios/smbios-tables` and `-anchor`.
//! Source: DMTF DSP0134 2.8, §5.2.1 (entry point), §7.2-7.20 (structures). Type 0 is the firmware's.

/// fw_cfg file of the structures.
pub const TABLES_FILE: &str = "etc/smbios/smbios-tables";
/// fw_cfg file of the entry point.
pub const ANCHOR_FILE: &str = "etc/smbios/smbios-anchor";

/// What the tables say of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmbiosConfig {
    /// Manufacturer of system, chassis, processors and memory.
    pub manufacturer: String,
    /// Product: the machine's description.
    pub product: String,
    /// Version: the machine's name.
    pub version: String,
    /// System UUID, as given (`-uuid`); all zero if none.
    pub uuid: [u8; 16],
    /// Processor sockets, with cores and threads of each.
    pub sockets: u32,
    /// Cores per socket.
    pub cores: u32,
    /// Threads per core.
    pub threads: u32,
    /// Processor id: CPUID leaf 1, EAX and EDX.
    pub processor_id: u64,
    /// RAM regions: first address and length in bytes.
    pub ram: Vec<(u64, u64)>,
}

/// The two fw_cfg files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmbiosFiles {
    /// Structures, ended by type 127.
    pub tables: Vec<u8>,
    /// `_SM_` entry point; firmware fills in the address and the checksums.
    pub anchor: Vec<u8>,
}

/// A structure under construction: formatted area and strings.
struct Structure {
    formatted: Vec<u8>,
    strings: Vec<u8>,
    count: u8,
}

impl Structure {
    fn new(kind: u8, handle: u16) -> Structure {
        let [lo, hi] = handle.to_le_bytes();
        Structure { formatted: vec![kind, 0, lo, hi], strings: Vec::new(), count: 0 }
    }

    fn bytes(mut self, bytes: &[u8]) -> Structure {
        self.formatted.extend_from_slice(bytes);
        self
    }

    fn word(self, v: u16) -> Structure {
        self.bytes(&v.to_le_bytes())
    }

    fn dword(self, v: u32) -> Structure {
        self.bytes(&v.to_le_bytes())
    }

    fn qword(self, v: u64) -> Structure {
        self.bytes(&v.to_le_bytes())
    }

    /// A reference to a string; an empty one is absent (number 0).
    fn text(mut self, s: &str) -> Structure {
        if s.is_empty() {
            return self.bytes(&[0]);
        }
        self.count += 1;
        self.strings.extend(s.bytes().filter(|b| *b != 0));
        self.strings.push(0);
        let number = self.count;
        self.bytes(&[number])
    }
}

#[derive(Default)]
struct Tables {
    bytes: Vec<u8>,
    count: u16,
    largest: usize,
}

impl Tables {
    fn add(&mut self, mut s: Structure) {
        let length = s.formatted.len() as u8;
        if let Some(l) = s.formatted.get_mut(1) {
            *l = length;
        }
        if s.strings.is_empty() {
            s.strings.push(0);
        }
        s.strings.push(0);
        self.largest = self.largest.max(s.formatted.len() + s.strings.len());
        self.count += 1;
        self.bytes.append(&mut s.formatted);
        self.bytes.append(&mut s.strings);
    }
}

const MIB: u64 = 1 << 20;
/// Largest memory device: RAM is described as one device per 16 GiB.
const DIMM: u64 = 16 << 30;

/// Builds both files.
pub fn build(c: &SmbiosConfig) -> SmbiosFiles {
    let mut t = Tables::default();
    // Type 1, system. The UUID's first three fields are little-endian from 2.6 on (§7.2.1).
    let [a, b, c2, d, e, f, g, h, rest @ ..] = c.uuid;
    let uuid = [d, c2, b, a, f, e, h, g];
    t.add(
        Structure::new(1, 0x100)
            .text(&c.manufacturer)
            .text(&c.product)
            .text(&c.version)
            .text("")
            .bytes(&uuid)
            .bytes(&rest)
            .bytes(&[6]) // wake-up: power switch
            .text("")
            .text(""),
    );
    // Type 3, chassis: other; states safe, security unknown.
    t.add(
        Structure::new(3, 0x300)
            .text(&c.manufacturer)
            .bytes(&[1])
            .text(&c.version)
            .text("")
            .text("")
            .bytes(&[3, 3, 3, 2])
            .dword(0)
            .bytes(&[0, 0, 0, 0])
            .text(""),
    );
    for socket in 0..c.sockets {
        t.add(processor(c, socket));
    }
    memory(&mut t, c);
    t.add(Structure::new(32, 0x2000).bytes(&[0; 7])); // boot status: no error
    t.add(Structure::new(127, 0x7f00));
    let anchor = anchor(&t);
    SmbiosFiles { tables: t.bytes, anchor }
}

fn processor(c: &SmbiosConfig, socket: u32) -> Structure {
    let byte = |n: u32| u8::try_from(n).unwrap_or(0xff);
    let threads = c.cores.saturating_mul(c.threads);
    Structure::new(4, 0x400u16.wrapping_add(socket as u16))
        .text(&format!("CPU {socket}"))
        .bytes(&[3, 1]) // central processor, family other
        .text(&c.manufacturer)
        .qword(c.processor_id)
        .text(&c.version)
        .bytes(&[0])
        .word(0) // external clock unknown
        .word(2000)
        .word(2000)
        .bytes(&[0x41, 1]) // populated and enabled; upgrade other
        .word(0xffff)
        .word(0xffff)
        .word(0xffff) // caches are not described
        .text("")
        .text("")
        .text("")
        .bytes(&[byte(c.cores), byte(c.cores), byte(threads)])
        .word(2) // characteristics unknown
        .word(1) // family other
}

fn memory(t: &mut Tables, c: &SmbiosConfig) {
    let total: u64 = c.ram.iter().map(|r| r.1).sum();
    let devices = total.div_ceil(DIMM).max(1);
    let kib = u32::try_from(total >> 10).ok().filter(|k| *k < 0x8000_0000);
    t.add(
        Structure::new(16, 0x1000)
            .bytes(&[1, 3, 6]) // other location, system memory, multi-bit ECC
            .dword(kib.unwrap_or(0x8000_0000))
            .word(0xfffe)
            .word(devices as u16)
            .qword(if kib.is_some() { 0 } else { total }),
    );
    for i in 0..devices {
        let mib = (total - i * DIMM).min(DIMM) / MIB;
        let (size, extended) = if mib < 0x7fff { (mib as u16, 0) } else { (0x7fff, mib as u32) };
        t.add(
            Structure::new(17, 0x1100u16.wrapping_add(i as u16))
                .word(0x1000)
                .word(0xfffe)
                .word(0xffff)
                .word(0xffff)
                .word(size)
                .bytes(&[9, 0]) // DIMM
                .text(&format!("DIMM {i}"))
                .text("")
                .bytes(&[7]) // RAM
                .word(2)
                .word(0)
                .text(&c.manufacturer)
                .text("")
                .text("")
                .text("")
                .bytes(&[0])
                .dword(extended)
                .word(0)
                .word(0)
                .word(0)
                .word(0),
        );
    }
    for (i, (start, length)) in (0u16..).zip(&c.ram) {
        let last = start + length.saturating_sub(1);
        let (first_kib, last_kib) = (start >> 10, last >> 10);
        let fits = last_kib < 0xffff_ffff;
        let s = Structure::new(19, 0x1300u16.wrapping_add(i));
        let s = if fits {
            s.dword(first_kib as u32).dword(last_kib as u32)
        } else {
            s.dword(0xffff_ffff).dword(0xffff_ffff)
        };
        let s = s.word(0x1000).bytes(&[1]);
        t.add(if fits { s.qword(0).qword(0) } else { s.qword(*start).qword(last) });
    }
}

/// Entry point, §5.2.1; checksums and the table address are the firmware's to fill in.
fn anchor(t: &Tables) -> Vec<u8> {
    let mut a = Vec::with_capacity(31);
    a.extend(b"_SM_");
    a.extend([0, 0x1f, 2, 8]);
    a.extend((t.largest as u16).to_le_bytes());
    a.extend([0; 6]);
    a.extend(b"_DMI_\0");
    a.extend((t.bytes.len() as u16).to_le_bytes());
    a.extend(0u32.to_le_bytes());
    a.extend(t.count.to_le_bytes());
    a.push(0x28);
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SmbiosConfig {
        SmbiosConfig {
            manufacturer: "QEMU".into(),
            product: "Standard PC (i440FX + PIIX, 1996)".into(),
            version: "pc-i440fx-11.1".into(),
            uuid: [0; 16],
            sockets: 1,
            cores: 1,
            threads: 1,
            processor_id: 0,
            ram: vec![(0, 128 << 20)],
        }
    }

    #[test]
    fn sizes_equal_the_peers() {
        let files = build(&config());
        assert_eq!((files.tables.len(), files.anchor.len()), (324, 31));
    }

    #[test]
    fn structures_decode_one_after_the_other() {
        let c = SmbiosConfig { sockets: 2, ram: vec![(0, 3 << 30), (4 << 30, 30 << 30)], ..config() };
        let files = build(&c);
        let (mut rest, mut kinds) = (&files.tables[..], vec![]);
        while !rest.is_empty() {
            kinds.push(rest[0]);
            let strings = &rest[rest[1].into()..];
            let end = strings.windows(2).position(|w| w == [0, 0]).expect("a double zero") + 2;
            rest = &strings[end..];
        }
        assert_eq!(kinds, [1, 3, 4, 4, 16, 17, 17, 17, 19, 19, 32, 127]);
        assert_eq!(u16::from_le_bytes([files.anchor[28], files.anchor[29]]), 12);
        assert_eq!(files.anchor.len(), 31);
    }
}
