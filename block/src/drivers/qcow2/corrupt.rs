//! What is found to be wrong with an image while it is used: the user hears of it once, and an image that could be written is marked, so that
//! nobody writes to it before it is repaired. Source: the qcow2 specification, "Header" (`incompatible_features`, bit 1).

use super::Qcow2;
use super::geometry::{OFFSET, Place, eio};
use super::header::{AT_INCOMPATIBLE, CORRUPT};
use super::meta::Meta;
use std::io;
use std::sync::atomic::Ordering;

impl Qcow2 {
    /// The L2 entry of a guest cluster, and what it says.
    ///
    /// # Errors
    /// A table or cluster begins where none can, or as the host says.
    pub(super) fn placed(&self, meta: &mut Meta, guest: u64) -> io::Result<(u64, Place)> {
        let (table, i1) = meta.l2_at(guest);
        if !table.is_multiple_of(self.geo.cluster()) {
            let text = format!("L2 table offset {table:#x} unaligned (L1 index: {i1:#x})");
            return Err(self.corrupt(meta, &text, None));
        }
        let entry = meta.entry(&self.file, guest)?;
        match self.geo.place(entry) {
            Ok(place) => Ok((entry, place)),
            Err(_) => {
                let (at, i2) = (entry & OFFSET, self.geo.indices(guest).1);
                let text =
                    format!("Cluster allocation offset {at:#x} unaligned (L2 offset: {table:#x}, L2 index: {i2:#x})");
                Err(self.corrupt(meta, &text, None))
            }
        }
    }

    /// Something is wrong; `place`: where, offset and bytes. The error for whoever asked.
    pub(super) fn corrupt(&self, meta: &mut Meta, text: &str, place: Option<(u64, u64)>) -> io::Error {
        if self.alarmed.swap(true, Ordering::SeqCst) {
            return eio();
        }
        if self.writable {
            meta.give_up();
            if self.geo.v3 {
                let bits = self.header.incompatible | CORRUPT;
                // (If the mark cannot be written, nothing else can be either.)
                _ = self.file.write(AT_INCOMPATIBLE, &bits.to_be_bytes()).and_then(|()| self.file.flush());
            }
        }
        self.reporter.corrupted(&self.name, text, place, self.writable);
        eio()
    }
}
