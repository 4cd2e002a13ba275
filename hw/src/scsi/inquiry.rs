//! INQUIRY: what a unit is. Sources: SPC-4 §6.5 and §7.8 (vital product data), SBC-3 §6.6 (pages of disks).

use super::cdb::Cdb;
use super::disk_commands::DiskInfo;
use super::put;
use super::sense::Sense;

/// Peripheral device types.
const DISK: u8 = 0;
const CD: u8 = 5;
/// Longest serial number that is shown, longest identification.
const MAX_SERIAL: usize = 36;
const MAX_ID: usize = 255 - 8;

/// The data, not yet cut to the allocation length.
///
/// # Errors
/// No such page.
pub(super) fn inquiry(i: &DiskInfo, c: &Cdb) -> Result<Vec<u8>, Sense> {
    match (c.byte(1) & 1 != 0, c.byte(2)) {
        (true, page) => page_of(i, page).ok_or(Sense::INVALID_FIELD),
        (false, 0) => Ok(standard(i)),
        (false, _) => Err(Sense::INVALID_FIELD),
    }
}

fn kind(i: &DiskInfo) -> u8 {
    if i.rom { CD } else { DISK }
}

fn padded(text: &str, n: usize) -> Vec<u8> {
    text.bytes().chain(std::iter::repeat(b' ')).take(n).collect()
}

fn standard(i: &DiskInfo) -> Vec<u8> {
    // Response data format 2 with hierarchical addresses; command queuing.
    let mut d = vec![kind(i), u8::from(i.removable) << 7, i.version, 0x12, 31, 0, 0, 0x02];
    d.extend(padded(&i.vendor, 8));
    d.extend(padded(&i.product, 16));
    d.extend(padded(&i.revision, 4));
    d
}

/// A page of vital product data.
fn page_of(i: &DiskInfo, page: u8) -> Option<Vec<u8>> {
    let body = match page {
        0x00 => {
            let serial: &[u8] = if i.serial.is_empty() { &[] } else { &[0x80] };
            let disk: &[u8] = if i.rom { &[] } else { &[0xb0, 0xb1, 0xb2] };
            [&[0x00], serial, &[0x83], disk].concat()
        }
        0x80 if !i.serial.is_empty() => i.serial.bytes().take(MAX_SERIAL).collect(),
        0x83 => identification(i),
        0xb0 if !i.rom => block_limits(i),
        0xb1 if !i.rom => {
            let mut d = vec![0; 60];
            put(&mut d, 0, &i.rotation_rate.to_be_bytes());
            d
        }
        0xb2 if !i.rom => {
            // UNMAP, WRITE SAME (16) and (10) unmap; thin provisioning where discards reach the host.
            let thin = i.granularity != 0;
            vec![0, if thin { 0xe0 } else { 0 }, if thin { 2 } else { 1 }, 0]
        }
        _ => return None,
    };
    let mut d = vec![kind(i), page];
    d.extend((body.len() as u16).to_be_bytes());
    d.extend(body);
    Some(d)
}

/// Page 83H. SPC-4 §7.8.6
fn identification(i: &DiskInfo) -> Vec<u8> {
    let mut d = vec![];
    if !i.device_id.is_empty() {
        let id: Vec<u8> = i.device_id.bytes().take(MAX_ID).collect();
        d.extend([2, 0, 0, id.len() as u8]); // ASCII, vendor specific, of the unit
        d.extend(id);
    }
    if i.wwn != 0 {
        d.extend([1, 3, 0, 8]); // binary, NAA, of the unit
        d.extend(i.wwn.to_be_bytes());
    }
    if i.port_wwn != 0 {
        d.extend([0x61, 0x93, 0, 8]); // SAS, NAA, of the port
        d.extend(i.port_wwn.to_be_bytes());
    }
    if i.port_index != 0 {
        d.extend([0x61, 0x94, 0, 4, 0, 0]); // SAS, relative port identifier, of the port
        d.extend(i.port_index.to_be_bytes());
    }
    d
}

/// Page B0H. SBC-3 §6.6.3
fn block_limits(i: &DiskInfo) -> Vec<u8> {
    let blocks = |bytes: u64| u32::try_from(bytes / i.block).unwrap_or(u32::MAX).to_be_bytes();
    let mut d = vec![0; 60];
    put(&mut d, 0, &[1, 0]); // WRITE SAME needs a length
    put(&mut d, 2, &((i.min_io / i.block) as u16).to_be_bytes());
    put(&mut d, 4, &blocks(i.max_io));
    put(&mut d, 8, &blocks(i.opt_io));
    put(&mut d, 16, &blocks(i.max_unmap));
    put(&mut d, 20, &(super::disk_commands::MAX_UNMAP_RANGES as u32).to_be_bytes());
    put(&mut d, 24, &blocks(i.granularity));
    put(&mut d, 36, &blocks(i.max_io));
    d
}
