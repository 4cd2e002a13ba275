//! What a target answers whichever of its units is asked, also for units that there are not. Source: SPC-4 §6.5 (INQUIRY of a unit that is
//! not there), §6.29 (REQUEST SENSE), §6.33 (REPORT LUNS).

use super::bus::{Command, End, ScsiDevice};
use super::cdb::op;
use super::sense::Sense;
use hw_core::Locked;

/// Peripheral qualifier and type: the target has no unit of this number; it could have one.
const NO_UNIT: u8 = 0x7f;
const NOT_CONNECTED: u8 = 0x3f;

/// Answers for the target of `d`; `missing`: the command is for a unit that there is not.
pub(super) fn answer(d: &ScsiDevice, m: &mut Locked, c: &Command, missing: bool) {
    match c.cdb.code() {
        op::REPORT_LUNS => report_luns(d, m, c),
        op::INQUIRY if missing => {
            if c.cdb.byte(1) & 1 != 0 || c.cdb.byte(2) != 0 {
                return d.end(m, c.tag, End::Check(Sense::INVALID_FIELD), 0);
            }
            let mut data = vec![0; 36];
            super::put(&mut data, 0, &[if c.lun == 0 { NOT_CONNECTED } else { NO_UNIT }, 0, 5, 0x12, 31]);
            super::put(&mut data, 8, b"QEMU    QEMU TARGET     ");
            d.reply(m, c, data, c.cdb.be16(3) as u64);
        }
        op::REQUEST_SENSE => request_sense(d, m, c, Sense::LUN_NOT_SUPPORTED),
        _ => d.end(m, c.tag, End::Check(Sense::LUN_NOT_SUPPORTED), 0),
    }
}

/// Number of a unit as eight bytes: peripheral device addressing, flat from 256 on. SAM-5 §4.7
pub fn lun_bytes(lun: u32) -> [u8; 8] {
    let [.., high, low] = lun.to_be_bytes();
    let high = if lun < 256 { 0 } else { high & 0x3f | 0x40 };
    [high, low, 0, 0, 0, 0, 0, 0]
}

fn report_luns(d: &ScsiDevice, m: &mut Locked, c: &Command) {
    let room = c.cdb.be32(6);
    if c.cdb.byte(2) > 2 || room < 16 {
        return d.end(m, c.tag, End::Check(Sense::INVALID_FIELD), 0);
    }
    let mut luns: Vec<u32> = match (c.cdb.byte(2), d.scsi_bus()) {
        // Only well known units, of which there are none.
        (1, _) | (_, None) => vec![],
        (_, Some(bus)) => bus.units().filter(|u| u.target() == d.target()).map(|u| u.unit()).collect(),
    };
    // There is always a unit 0 to be asked.
    if c.cdb.byte(2) != 1 && !luns.contains(&0) {
        luns.insert(0, 0);
    }
    let mut data = (8 * luns.len() as u32).to_be_bytes().to_vec();
    data.extend([0; 4]);
    data.extend(luns.into_iter().flat_map(lun_bytes));
    d.reply(m, c, data, room);
}

/// REQUEST SENSE: sense data as data.
pub(super) fn request_sense(d: &ScsiDevice, m: &mut Locked, c: &Command, sense: Sense) {
    let data = if c.cdb.byte(1) & 1 != 0 { sense.descriptor().to_vec() } else { sense.fixed().to_vec() };
    d.reply(m, c, data, c.cdb.byte(4).into());
}

#[cfg(test)]
mod tests {
    #[test]
    fn units_have_numbers_of_two_forms() {
        assert_eq!(super::lun_bytes(5)[..2], [0, 5]);
        assert_eq!(super::lun_bytes(0x1234)[..2], [0x52, 0x34]);
    }
}
