//! What a PC's set-up leaves in the CMOS RAM. Source: Ralf Brown's CMOS list; SeaBIOS `rtc.h` for the registers above 0x30.

use super::memory::Split;
use crate::rtc::mc146818rtc::Mc146818Rtc;
use hw_core::Locked;
use qom::{Error, Result};

/// Boot device numbers of CMOS: letters of `-boot order`.
fn boot_device(letter: char) -> Option<u8> {
    match letter {
        'a' | 'b' => Some(1),
        'c' => Some(2),
        'd' => Some(3),
        'n'..='p' => Some(4),
        _ => None,
    }
}

/// Writes the boot order.
///
/// # Errors
/// More than three devices, or a letter that is none.
pub fn set_boot_order(rtc: &Mc146818Rtc, m: &mut Locked, order: &str, check_floppy: bool) -> Result<()> {
    let mut devices = [0u8; 3];
    if order.chars().count() > devices.len() {
        return Err(Error::generic("Too many boot devices for PC"));
    }
    for (d, letter) in devices.iter_mut().zip(order.chars()) {
        *d = boot_device(letter).ok_or_else(|| Error::generic(format!("Invalid boot device for PC: '{letter}'")))?;
    }
    let [first, second, third] = devices;
    rtc.set_cmos(m, 0x3d, second << 4 | first);
    rtc.set_cmos(m, 0x38, third << 4 | u8::from(!check_floppy));
    Ok(())
}

/// Writes memory sizes and equipment.
pub fn set_memory(rtc: &Mc146818Rtc, m: &mut Locked, split: Split) {
    let kib = (split.below.saturating_sub(1 << 20) >> 10).min(0xffff) as u16;
    let above_16m = (split.below.saturating_sub(16 << 20) >> 16).min(0xffff) as u16;
    let above_4g = (split.above >> 16).min(0x00ff_ffff) as u32;
    let [e0, e1] = kib.to_le_bytes();
    let [h0, h1] = above_16m.to_le_bytes();
    let [g0, g1, g2, _] = above_4g.to_le_bytes();
    let base = 640u16.to_le_bytes();
    for (at, v) in [
        (0x15, base[0]),
        (0x16, base[1]),
        (0x17, e0),
        (0x18, e1),
        (0x30, e0),
        (0x31, e1),
        (0x34, h0),
        (0x35, h1),
        (0x5b, g0),
        (0x5c, g1),
        (0x5d, g2),
        (0x14, 0x06), // FPU, PS/2 mouse
    ] {
        rtc.set_cmos(m, at, v);
    }
}

/// Writes the kinds of the floppy drives; 0: none.
pub fn set_floppies(rtc: &Mc146818Rtc, m: &mut Locked, [a, b]: [u8; 2]) {
    rtc.set_cmos(m, 0x10, a << 4 | b);
}

/// Writes the number of CPUs minus one, for firmware that starts them.
pub fn set_cpu_count(rtc: &Mc146818Rtc, m: &mut Locked, cpus: u32) {
    rtc.set_cmos(m, 0x5f, cpus.saturating_sub(1).min(255) as u8);
}
