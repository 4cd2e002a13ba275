//! SCSI: the bus, the devices on it, and the commands they understand. Sources: SPC-4 (all devices), SBC-3 (disks), MMC-6 (CD drives),
//! SAM-5 (status, task management).
//!
//! A *host bus adapter* ([`bus::ScsiHba`]) owns a [`bus::ScsiBus`] and gives commands to the devices on it; data goes between the device and
//! the adapter's idea of the initiator's memory, by the tag of the command. Commands that need the image are *jobs*, values that are part of
//! the device's state, as those of IDE. What CD drives say of their media is in [`mmc`], which IDE's CD drives share.

pub mod bus;
pub mod cdb;
pub mod disk;
mod disk_commands;
mod inquiry;
pub mod mmc;
mod mode;
pub mod sense;
mod target;
mod types;

/// Puts bytes into a reply, as far as it goes.
pub(crate) fn put(reply: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in reply.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}
