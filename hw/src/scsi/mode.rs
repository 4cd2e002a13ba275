//! MODE SENSE and MODE SELECT. Sources: SPC-4 §6.11, §6.13, §7.5; SBC-3 §6.5 (caching, error recovery); SCSI-2 §9.3.3 (geometry pages).
//! The write cache is all that can be changed.

use super::cdb::{Cdb, op};
use super::disk_commands::DiskInfo;
use super::mmc;
use super::put;
use super::sense::Sense;

/// Pages there are, by number.
const PAGES: [u8; 6] = [0x01, 0x04, 0x05, 0x08, 0x0e, 0x2a];
const CACHING: u8 = 0x08;
/// Write cache enable, third byte of the caching page.
const WCE: u8 = 0x04;
const ALL: u8 = 0x3f;

/// Which values of a page are meant. SPC-4 §6.11.1
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Current,
    Changeable,
    Default,
}

/// A page with header; `None`: the unit has no such page.
fn page_of(i: &DiskInfo, page: u8, values: Values) -> Option<Vec<u8>> {
    let (cyls, heads, secs) = i.chs;
    let [_, c @ ..] = cyls.to_be_bytes();
    let mut d = match page {
        0x01 => {
            let mut d = vec![0x01, 10];
            d.resize(12, 0);
            // Reallocates defective blocks; CD drives say how often they try.
            put(&mut d, if i.rom { 3 } else { 2 }, &[if i.rom { 0x20 } else { 0x80 }]);
            d
        }
        0x04 if !i.rom => {
            let mut d = vec![0x04, 22];
            d.resize(24, 0);
            put(&mut d, 2, &c);
            put(&mut d, 5, &[heads as u8]);
            put(&mut d, 6, &c); // write precompensation, reduced write current
            put(&mut d, 9, &c);
            put(&mut d, 13, &[200, 0xff, 0xff, 0xff]); // step rate, landing zone
            put(&mut d, 20, &5400u16.to_be_bytes());
            d
        }
        0x05 if !i.rom => {
            let mut d = vec![0x05, 30];
            d.resize(32, 0);
            put(&mut d, 2, &5000u16.to_be_bytes());
            put(&mut d, 4, &[heads as u8, secs as u8]);
            put(&mut d, 6, &(i.block as u16).to_be_bytes());
            put(&mut d, 8, &(cyls.min(0xffff) as u16).to_be_bytes());
            put(&mut d, 28, &5400u16.to_be_bytes());
            d
        }
        CACHING => {
            let mut d = vec![CACHING, 18];
            d.resize(20, 0);
            let on = match values {
                Values::Changeable => true,
                _ => i.write_cache,
            };
            put(&mut d, 2, &[if on { WCE } else { 0 }]);
            d
        }
        page if i.rom => mmc::mode_page(page, i.tray_locked)?,
        _ => return None,
    };
    if values == Values::Changeable && page != CACHING {
        d.iter_mut().skip(2).for_each(|b| *b = 0);
    }
    Some(d)
}

/// MODE SENSE.
///
/// # Errors
/// No such page; saved values, which there are none of.
pub(super) fn sense(i: &DiskInfo, c: &Cdb) -> Result<Vec<u8>, Sense> {
    let long = c.code() == op::MODE_SENSE_10;
    let values = match c.byte(2) >> 6 {
        0 => Values::Current,
        1 => Values::Changeable,
        2 => Values::Default,
        _ => return Err(Sense::SAVING_NOT_SUPPORTED),
    };
    let wanted = c.byte(2) & 0x3f;
    let pages: Vec<u8> = match wanted {
        ALL => PAGES.iter().filter_map(|p| page_of(i, *p, values)).flatten().collect(),
        page => page_of(i, page, values).ok_or(Sense::INVALID_FIELD)?,
    };
    // CD drives have neither device-specific parameters nor block descriptors. MMC-6 §7.2.2
    let specific = if i.rom { 0 } else { u8::from(i.read_only) << 7 | if i.dpofua { 0x10 } else { 0 } };
    let descriptor = if i.rom || c.byte(1) & 8 != 0 || i.len == 0 { vec![] } else { descriptor(i) };
    let len = pages.len() + descriptor.len();
    let mut d = if long {
        let mut d = ((len + 6) as u16).to_be_bytes().to_vec();
        d.extend([0, specific, 0, 0]);
        d.extend((descriptor.len() as u16).to_be_bytes());
        d
    } else {
        vec![(len + 3).min(255) as u8, 0, specific, descriptor.len() as u8]
    };
    d.extend(descriptor);
    d.extend(pages);
    Ok(d)
}

/// Block descriptor: blocks, if three bytes hold their number, and their size.
fn descriptor(i: &DiskInfo) -> Vec<u8> {
    let blocks = Some(i.len / i.block).filter(|n| *n <= 0xff_ffff).unwrap_or(0) as u32;
    [blocks.to_be_bytes(), (i.block as u32).to_be_bytes()].concat()
}

/// MODE SELECT: whether the write cache is to be on, if the list says so.
///
/// # Errors
/// The list is none, or changes what does not change.
pub(super) fn select(i: &DiskInfo, c: &Cdb, list: &[u8]) -> Result<Option<bool>, Sense> {
    // Page format, nothing saved.
    if c.byte(1) & 0x11 != 0x10 {
        return Err(Sense::INVALID_FIELD);
    }
    if list.is_empty() {
        return Ok(None);
    }
    let long = c.code() == op::MODE_SELECT_10;
    let header = if long { 8 } else { 4 };
    let at = |n: usize| list.get(n).copied().map(usize::from);
    let descriptors = match long {
        true => at(6).zip(at(7)).map(|(h, l)| h << 8 | l),
        false => at(3),
    };
    let descriptors = descriptors.ok_or(Sense::INVALID_PARAM_LEN)?;
    if descriptors != 0 && descriptors != 8 {
        return Err(Sense::INVALID_PARAM);
    }
    let mut rest = list.get(header + descriptors..).ok_or(Sense::INVALID_PARAM_LEN)?;
    let mut cache = None;
    while let [first, len, ..] = rest {
        if first & 0x40 != 0 {
            return Err(Sense::INVALID_PARAM); // subpages
        }
        let (page, size) = (first & 0x3f, usize::from(*len) + 2);
        let new = rest.get(..size).ok_or(Sense::INVALID_PARAM_LEN)?;
        let current = page_of(i, page, Values::Current).ok_or(Sense::INVALID_PARAM)?;
        let mask = page_of(i, page, Values::Changeable).ok_or(Sense::INVALID_PARAM)?;
        if current.len() != size {
            return Err(Sense::INVALID_PARAM);
        }
        let same = new.iter().zip(&current).zip(&mask).skip(2).all(|((n, c), k)| (n ^ c) & !k == 0);
        if !same {
            return Err(Sense::INVALID_PARAM);
        }
        if page == CACHING {
            cache = new.get(2).map(|b| b & WCE != 0);
        }
        rest = rest.get(size..).unwrap_or_default();
    }
    if rest.is_empty() { Ok(cache) } else { Err(Sense::INVALID_PARAM_LEN) }
}
