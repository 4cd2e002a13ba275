//! What CD drives say of tray, medium and themselves: the commands that SCSI and ATAPI drives share. Source: MMC-6 §6 (commands) and §5
//! (features), SFF-8020i (page 2AH). A medium is data of one track. Raw sectors, audio and recording are not there.

use super::cdb::Cdb;
use super::sense::Sense;
use serde::{Deserialize, Serialize};

/// Bytes of a sector.
pub const SECTOR: u64 = 2048;
/// Largest CD, sectors: 80 minutes.
const CD_MAX: u64 = 80 * 60 * 75;
/// Profiles: what kinds of media there are.
const DVD_ROM: u16 = 0x0010;
const CD_ROM: u16 = 0x0008;

/// Tray of a drive and what is to be reported of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tray {
    /// It is open.
    pub open: bool,
    /// The initiator does not want it opened.
    pub locked: bool,
    /// Media events not reported yet: a new medium, a wish to eject.
    event_new: bool,
    event_eject: bool,
}

impl Tray {
    /// A reset forgets everything but whether it is open.
    pub fn after_reset(self) -> Self {
        Self { open: self.open, ..Self::default() }
    }

    /// Somebody pressed the button of a locked tray.
    pub fn wish_to_eject(&mut self) {
        self.event_eject = true;
    }

    /// There is another medium, or none.
    pub fn medium_changed(&mut self) {
        (self.event_new, self.event_eject) = (true, false);
    }

    /// PREVENT ALLOW MEDIUM REMOVAL.
    pub fn prevent(&mut self, c: &Cdb) {
        self.locked = c.byte(4) & 1 != 0;
    }

    /// START STOP UNIT: loads or ejects. False: the tray is locked.
    pub fn start_stop(&mut self, c: &Cdb) -> bool {
        let (start, load) = (c.byte(4) & 1 != 0, c.byte(4) & 2 != 0);
        // With a power condition nothing else in the command counts.
        if c.byte(4) & 0xf0 != 0 || !load {
            return true;
        }
        if !start && !self.open && self.locked {
            return false;
        }
        self.open = !start;
        true
    }

    /// GET EVENT STATUS NOTIFICATION; `present`: there is a medium, in or out.
    ///
    /// # Errors
    /// It is to be asynchronous.
    pub fn events(&mut self, c: &Cdb, present: bool) -> Result<Vec<u8>, Sense> {
        const MEDIA: u8 = 4;
        if c.byte(1) & 1 == 0 {
            return Err(Sense::INVALID_FIELD);
        }
        if c.byte(4) & 1 << MEDIA == 0 {
            return Ok(vec![0, 0, 0x80, 1 << MEDIA]);
        }
        let event = match (std::mem::take(&mut self.event_new), self.event_eject) {
            (true, _) => 2,
            (false, true) => {
                self.event_eject = false;
                1
            }
            _ => 0,
        };
        let medium = if self.open { 1 } else { u8::from(present) << 1 };
        Ok(vec![0, 4, MEDIA, 1 << MEDIA, event, medium, 0, 0])
    }
}

/// Minute, second and frame of a sector.
fn msf(lba: u64) -> [u8; 3] {
    let frames = lba + 150;
    [(frames / 75 / 60) as u8, (frames / 75 % 60) as u8, (frames % 75) as u8]
}

/// An address of the table of contents.
fn address(lba: u64, as_msf: bool) -> [u8; 4] {
    let [m, s, f] = msf(lba);
    if as_msf { [0, m, s, f] } else { (lba as u32).to_be_bytes() }
}

fn with_length(mut d: Vec<u8>) -> Vec<u8> {
    let len = d.len() as u16;
    d.splice(0..0, len.to_be_bytes()).for_each(drop);
    d
}

/// READ TOC/PMA/ATIP of a medium of `total` sectors.
///
/// # Errors
/// A format or track that there is not.
pub fn read_toc(c: &Cdb, total: u64) -> Result<Vec<u8>, Sense> {
    let (as_msf, start) = (c.byte(1) & 2 != 0, c.byte(6));
    // The format is in the last byte of old initiators, in the third of new ones.
    let format = match c.byte(2) & 0xf {
        0 => c.byte(9) >> 6,
        n => n,
    };
    match format {
        0 => {
            if start > 1 && start != 0xaa {
                return Err(Sense::INVALID_FIELD);
            }
            let mut d = vec![1, 1];
            if start <= 1 {
                d.extend([0, 0x14, 1, 0]);
                d.extend(address(0, as_msf));
            }
            d.extend([0, 0x16, 0xaa, 0]);
            d.extend(address(total, as_msf));
            Ok(with_length(d))
        }
        // sessions
        1 => Ok(vec![0, 0x0a, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        // raw: first track, last track, lead-out, track 1
        2 => {
            let [m, s, f] = msf(total);
            let [m1, s1, f1] = msf(0);
            let mut d = vec![1, 1];
            for (point, pmin, psec, pframe) in [(0xa0, 1, 0, 0), (0xa1, 1, 0, 0), (0xa2, m, s, f), (1, m1, s1, f1)] {
                d.extend([1, 0x14, 0, point, 0, 0, 0, 0, pmin, psec, pframe]);
            }
            Ok(with_length(d))
        }
        _ => Err(Sense::INVALID_FIELD),
    }
}

/// READ DISC INFORMATION: a finished disc of one session with one track, of unrestricted use.
///
/// # Errors
/// Another kind of information.
pub fn disc_information(c: &Cdb) -> Result<Vec<u8>, Sense> {
    if c.byte(1) & 7 != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    let mut d = vec![0, 32, 0x0e, 1, 1, 1, 1, 0x20];
    d.resize(34, 0);
    Ok(d)
}

/// MECHANISM STATUS: idle, one slot.
pub fn mechanism_status() -> Vec<u8> {
    vec![0, 0, 0, 0, 0, 1, 0, 0]
}

/// GET CONFIGURATION; `medium`: sectors of the one that is in.
///
/// # Errors
/// A feature besides the profile list is where it is to begin.
pub fn configuration(c: &Cdb, medium: Option<u64>) -> Result<Vec<u8>, Sense> {
    if c.be16(2) != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    let current = match medium {
        None => 0,
        Some(sectors) if sectors > CD_MAX => DVD_ROM,
        Some(_) => CD_ROM,
    };
    let mut d = vec![0, 0, 0, 16, 0, 0];
    d.extend(current.to_be_bytes());
    d.extend([0, 0, 0x03, 8]); // feature 0, persistent and current
    for profile in [DVD_ROM, CD_ROM] {
        d.extend(profile.to_be_bytes());
        d.extend([u8::from(profile == current), 0]);
    }
    Ok(d)
}

/// Whether READ CD asks for user data (`Some(true)`) or for nothing.
pub fn read_cd_wants_data(c: &Cdb) -> Option<bool> {
    match c.byte(9) & 0xf8 {
        0x00 => Some(false),
        0x10 => Some(true),
        _ => None,
    }
}

/// A mode page of CD drives: audio control, capabilities and mechanical status.
pub fn mode_page(page: u8, locked: bool) -> Option<Vec<u8>> {
    match page {
        0x0e => Some(vec![0x0e, 0x0e, 4, 0, 0, 0, 0, 0, 1, 0xff, 2, 0xff, 0, 0, 0, 0]),
        0x2a => {
            let lock = u8::from(locked) << 1;
            let mut d = vec![0x2a, 0x14, 0x3b, 0, 0x71, 3 << 5, 1 | 1 << 3 | 1 << 5 | lock, 0];
            d.extend([704u16, 2, 512, 704].iter().flat_map(|v| v.to_be_bytes()));
            d.extend([0; 6]);
            Some(d)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_tray_stays_and_says_so() {
        let eject = Cdb::new(&[0x1b, 0, 0, 0, 2, 0]);
        let mut t = Tray { locked: true, ..Tray::default() };
        assert!(!t.start_stop(&eject) && !t.open);
        t.wish_to_eject();
        let poll = Cdb::new(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0]);
        assert_eq!(t.events(&poll, true).unwrap(), [0, 4, 4, 0x10, 1, 2, 0, 0]);
        assert_eq!(t.events(&poll, true).unwrap()[4], 0);
        t.prevent(&Cdb::new(&[0x1e]));
        assert!(t.start_stop(&eject) && t.open);
        assert_eq!(t.events(&poll, true).unwrap()[5], 1);
    }

    #[test]
    fn the_table_of_contents_has_one_track() {
        let d = read_toc(&Cdb::new(&[0x43, 2, 0, 0, 0, 0, 0, 0, 20, 0]), 1000).unwrap();
        assert_eq!(d[..12], [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 2, 0]);
        assert_eq!(d[12..], [0, 0x16, 0xaa, 0, 0, 0, 15, 25]);
        assert_eq!(read_toc(&Cdb::new(&[0x43, 0, 0, 0, 0, 0, 7]), 1000), Err(Sense::INVALID_FIELD));
    }
}
