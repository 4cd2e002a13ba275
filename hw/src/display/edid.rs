//! Extended display identification data of a virtual monitor. Source: VESA E-EDID 1.4 §3.

/// Size of the base block.
const BLOCK: usize = 128;
const REFRESH: u32 = 75;
const DPI: u32 = 100;

/// Three letters in five bits each, big endian.
fn vendor(letters: [u8; 3]) -> [u8; 2] {
    let [a, b, c] = letters.map(|l| u16::from(l & 0x1f));
    (a << 10 | b << 5 | c).to_be_bytes()
}

/// A detailed timing descriptor, §3.10.2: the preferred mode with reduced blanking.
fn timing(x: u32, y: u32, mm: (u32, u32)) -> [u8; 18] {
    let (front, sync, blank) = (x * 25 / 100, x * 3 / 100, x * 35 / 100);
    let (v_front, v_sync, v_blank) = (y * 5 / 1000, y * 5 / 1000, y * 35 / 1000);
    let clock = ((x + blank) * (y + v_blank) * REFRESH / 10_000).min(0xffff) as u16;
    let [c0, c1] = clock.to_le_bytes();
    let high = |a: u32, b: u32| ((a >> 8 & 0xf) << 4 | b >> 8 & 0xf) as u8;
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

/// A display descriptor with text, §3.10.3.
fn text(tag: u8, s: &str) -> [u8; 18] {
    let mut d = [0x20; 18];
    let head = [0, 0, 0, tag, 0];
    let bytes = head.into_iter().chain(s.bytes().take(12)).chain([b'\n']);
    d.iter_mut().zip(bytes).for_each(|(d, b)| *d = b);
    d
}

/// The block for a monitor that prefers `x` by `y`.
pub fn generate(x: u32, y: u32) -> Vec<u8> {
    let (x, y) = (x.clamp(320, 4095), y.clamp(200, 4095));
    let mm = (x * 254 / (DPI * 10), y * 254 / (DPI * 10));
    let mut e = Vec::with_capacity(BLOCK);
    e.extend([0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    e.extend(vendor(*b"RHT"));
    e.extend(0x1234u16.to_le_bytes());
    e.extend(0u32.to_le_bytes());
    e.extend([42, 24, 1, 4]); // week, year 2014, version 1.4
    e.extend([0xa5, (mm.0 / 10) as u8, (mm.1 / 10) as u8, 120, 0x06]); // digital 8 bit, size in cm, gamma 2.2
    e.extend([0xee, 0x95, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]); // sRGB chromaticity
    e.extend([0x21, 0x08, 0x00]); // 640x480, 800x600, 1024x768 at 60 Hz
    e.extend([0x01; 16]); // no standard timings
    e.extend(timing(x, y, mm));
    e.extend(text(0xfc, "QEMU Monitor"));
    e.extend([0, 0, 0, 0xfd, 0, 50, 125, 30, 160, 0xff, 0, b'\n', 0x20, 0x20, 0x20, 0x20, 0x20, 0x20]); // range limits
    e.extend(text(0xff, "0"));
    e.push(0); // no extensions
    let sum = e.iter().fold(0u8, |s, b| s.wrapping_add(*b));
    e.push(sum.wrapping_neg());
    e
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_has_its_size_and_checksum() {
        for (x, y) in [(1280, 800), (1, 1), (u32::MAX, u32::MAX)] {
            let e = generate(x, y);
            assert_eq!((e.len(), e.iter().fold(0u8, |s, b| s.wrapping_add(*b))), (BLOCK, 0));
        }
    }
}
