//! Extended display identification data of a virtual monitor. Source: VESA E-EDID 1.4 §3 (base block), CTA-861-G §7.3
//! (first extension), VESA DisplayID 1.3 §4 (second extension, for what a base block cannot say).

/// Size of a block.
const BLOCK: usize = 128;
/// Refresh rate of the preferred mode, mHz.
const REFRESH: u32 = 75_000;
const DPI: u32 = 100;
/// Preferred mode that is nobody's choice, pixels.
pub const PREFERRED: (u32, u32) = (1280, 800);

/// What is known of the monitor; 0 stands for the default, or for no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Monitor {
    /// Preferred mode, pixels.
    pub preferred: (u32, u32),
    /// Largest mode, pixels.
    pub largest: (u32, u32),
    /// Refresh rate of the preferred mode, mHz.
    pub refresh_rate: u32,
}

/// Established timings, §3.8: width, height, byte from 23h, bit.
const ESTABLISHED: [(u32, u32, usize, u8); 3] = [(640, 480, 0, 5), (800, 600, 0, 0), (1024, 768, 1, 3)];
/// Standard timings, §3.9, at 60 Hz: width, height, aspect code (16:10, 4:3, 5:4, 16:9).
const STANDARD: [(u32, u32, u8); 8] = [
    (2048, 1152, 3),
    (1920, 1080, 3),
    (1920, 1200, 0),
    (1600, 1200, 1),
    (1680, 1050, 0),
    (1440, 900, 0),
    (1280, 1024, 2),
    (1280, 960, 1),
];
/// Established timings III, §3.10.3.9, at 60 Hz: width, height, byte of the descriptor, bit.
const ESTABLISHED_III: [(u32, u32, usize, u8); 6] = [
    (1280, 768, 7, 6),
    (1360, 768, 8, 7),
    (1400, 1050, 8, 1),
    (1792, 1344, 10, 5),
    (1856, 1392, 10, 3),
    (1920, 1440, 11, 5),
];
/// Video identification codes, CTA-861-G table 3: width, height, code.
const VIDEO: [(u32, u32, u8); 6] =
    [(5120, 2160, 125), (4096, 2160, 101), (3840, 2160, 96), (2560, 1080, 89), (1920, 1080, 31), (3840, 2160, 97)];

/// Three letters in five bits each, big endian.
fn vendor(letters: [u8; 3]) -> [u8; 2] {
    let [a, b, c] = letters.map(|l| u16::from(l & 0x1f));
    (a << 10 | b << 5 | c).to_be_bytes()
}

/// A mode with reduced blanking: pixels, lines, 10 kHz.
struct Timing {
    active: (u32, u32),
    blank: (u32, u32),
    front: (u32, u32),
    sync: (u32, u32),
    clock: u32,
}

impl Timing {
    fn new((x, y): (u32, u32), refresh: u32) -> Self {
        let blank = (x * 35 / 100, y * 35 / 1000);
        let total = u64::from(x + blank.0) * u64::from(y + blank.1);
        Timing {
            active: (x, y),
            blank,
            front: (x * 25 / 100, y * 5 / 1000),
            sync: (x * 3 / 100, y * 5 / 1000),
            clock: (total * u64::from(refresh) / 10_000_000) as u32,
        }
    }

    /// A base block has 12 bits for a length and 16 for the clock.
    fn fits(&self) -> bool {
        self.active.0 < 4096 && self.active.1 < 4096 && self.clock < 0x1_0000
    }

    /// A detailed timing descriptor, E-EDID §3.10.2.
    fn detailed(&self, mm: (u32, u32)) -> [u8; 18] {
        let [c0, c1, ..] = self.clock.to_le_bytes();
        let high = |a: u32, b: u32| ((a >> 8 & 0xf) << 4 | b >> 8 & 0xf) as u8;
        let ((x, y), (blank, v_blank)) = (self.active, self.blank);
        let ((front, v_front), (sync, v_sync)) = (self.front, self.sync);
        [
            c0,
            c1,
            x as u8,
            blank as u8,
            high(x, blank),
            y as u8,
            v_blank as u8,
            high(y, v_blank),
            front as u8,
            sync as u8,
            ((v_front & 0xf) << 4 | v_sync & 0xf) as u8,
            ((front >> 8 & 3) << 6 | (sync >> 8 & 3) << 4 | (v_front >> 4 & 3) << 2 | v_sync >> 4 & 3) as u8,
            mm.0 as u8,
            mm.1 as u8,
            high(mm.0, mm.1),
            0,
            0,
            0x18, // digital, separate sync
        ]
    }

    /// A type I timing, DisplayID §4.4.1: every number is one less than what it says.
    fn type_1(&self) -> Vec<u8> {
        let [c0, c1, c2, _] = self.clock.saturating_sub(1).to_le_bytes();
        let mut t = vec![c0, c1, c2, 0x88]; // preferred, aspect ratio not given
        for v in [self.active, self.blank, self.front, self.sync].map(|v| v.0) {
            t.extend((v.saturating_sub(1) as u16).to_le_bytes());
        }
        for v in [self.active, self.blank, self.front, self.sync].map(|v| v.1) {
            t.extend((v.saturating_sub(1) as u16).to_le_bytes());
        }
        t
    }
}

/// A display descriptor, §3.10.3: tag and contents.
fn descriptor(tag: u8, contents: &[u8]) -> [u8; 18] {
    let mut d = [0; 18];
    let head = [0, 0, 0, tag, 0];
    d.iter_mut().zip(head.iter().chain(contents)).for_each(|(d, s)| *d = *s);
    d
}

/// Room that is not used.
fn dummy() -> [u8; 18] {
    descriptor(0x10, &[])
}

/// Fills a block up and ends it with its checksum.
fn finish(mut block: Vec<u8>) -> Vec<u8> {
    block.resize(BLOCK - 1, 0);
    let sum = block.iter().fold(0u8, |s, b| s.wrapping_add(*b));
    block.push(sum.wrapping_neg());
    block
}

/// The blocks for a monitor.
pub fn generate(monitor: Monitor) -> Vec<u8> {
    let or = |v: u32, default: u32| if v == 0 { default } else { v };
    let (x, y) = (
        or(monitor.preferred.0, PREFERRED.0).clamp(320, 16000),
        or(monitor.preferred.1, PREFERRED.1).clamp(200, 16000),
    );
    let fits = |w: u32, h: u32| {
        let (max_x, max_y) = monitor.largest;
        (max_x == 0 || w <= max_x) && (max_y == 0 || h <= max_y)
    };
    let mm = (x * 254 / (DPI * 10), y * 254 / (DPI * 10));
    let timing = Timing::new((x, y), or(monitor.refresh_rate, REFRESH).clamp(1_000, 1_000_000));

    let mut established = [0u8; 3];
    for (.., byte, bit) in ESTABLISHED.iter().filter(|m| fits(m.0, m.1)) {
        if let Some(b) = established.get_mut(*byte) {
            *b |= 1 << bit;
        }
    }
    let mut more = [0u8; 12];
    more[0] = 0x0a; // version
    for (.., byte, bit) in ESTABLISHED_III.iter().filter(|m| fits(m.0, m.1)) {
        if let Some(b) = more.get_mut(*byte - 5) {
            *b |= 1 << bit;
        }
    }
    let mut standard: Vec<[u8; 2]> =
        STANDARD.iter().filter(|m| fits(m.0, m.1)).map(|(w, _, aspect)| [(w / 8 - 31) as u8, aspect << 6]).collect();
    standard.resize(8, [1, 1]); // not used

    let mut descriptors = vec![
        descriptor(0xf7, &more),
        descriptor(0xfd, b"\x32\x7d\x1e\xa0\xff\x01\x0a      "), // 50-125 Hz, 30-160 kHz, 2550 MHz
        descriptor(0xfc, b"QEMU Monitor\n"),
    ];
    if timing.fits() {
        descriptors.insert(0, timing.detailed(mm));
    } else {
        descriptors.push(dummy());
    }

    let mut e = Vec::with_capacity(3 * BLOCK);
    e.extend([0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    e.extend(vendor(*b"RHT"));
    e.extend(0x1234u16.to_le_bytes());
    e.extend(0u32.to_le_bytes());
    e.extend([42, 24, 1, 4]); // week, year 2014, version 1.4
    e.extend([0xa5, (mm.0 / 10) as u8, (mm.1 / 10) as u8, 120, 0x06]); // digital 8 bit, size in cm, gamma 2.2
    e.extend([0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]); // sRGB chromaticity
    e.extend(established);
    e.extend(standard.iter().flatten());
    e.extend(descriptors.iter().flatten());
    e.push(if timing.fits() { 1 } else { 2 }); // extensions
    let mut e = finish(e);
    e.extend(cta(fits));
    if !timing.fits() {
        e.extend(display_id(&timing));
    }
    e
}

/// The CTA-861 extension: video codes, no detailed timings.
fn cta(fits: impl Fn(u32, u32) -> bool) -> Vec<u8> {
    let codes: Vec<u8> = VIDEO.iter().filter(|m| fits(m.0, m.1)).map(|m| m.2).collect();
    let mut c = vec![0x02, 0x03, 5 + codes.len() as u8, 0, 0x40 | codes.len() as u8];
    c.extend(codes);
    while c.len() + 18 < BLOCK {
        c.extend(dummy());
    }
    finish(c)
}

/// The DisplayID extension with the preferred mode.
fn display_id(timing: &Timing) -> Vec<u8> {
    let mut section = vec![0x13, 23, 3, 0, 0x03, 0, 20]; // version, length, stand-alone display; a type I timing
    section.extend(timing.type_1());
    let sum = section.iter().fold(0u8, |s, b| s.wrapping_add(*b));
    section.push(sum.wrapping_neg());
    section.insert(0, 0x70);
    finish(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(e: &[u8]) -> Vec<u8> {
        e.chunks(BLOCK).map(|b| b.iter().fold(0u8, |s, b| s.wrapping_add(*b))).collect()
    }

    #[test]
    fn blocks_have_their_size_and_checksum() {
        for (preferred, blocks) in [((0, 0), 2), ((1, 1), 2), ((3840, 2160), 3), ((u32::MAX, u32::MAX), 3)] {
            let e = generate(Monitor { preferred, ..Monitor::default() });
            assert_eq!((e.len(), sums(&e)), (blocks * BLOCK, vec![0; blocks]), "{preferred:?}");
            assert_eq!(usize::from(e[126]), blocks - 1);
        }
    }

    #[test]
    fn modes_beyond_the_largest_are_not_offered() {
        let e = generate(Monitor { preferred: (800, 600), largest: (800, 600), refresh_rate: 60_000 });
        assert_eq!(e[0x23..0x36], [0x21, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(e[BLOCK..BLOCK + 5], [2, 3, 5, 0, 0x40]);
        let clock = u32::from(u16::from_le_bytes([e[0x36], e[0x37]])) * 10_000;
        assert_eq!(clock, (800 + 280) * (600 + 21) * 60 / 10_000 * 10_000);
    }
}
