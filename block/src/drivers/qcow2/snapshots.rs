//! The list of internal snapshots. Source: the qcow2 specification, "Snapshots".

use super::geometry::{Geometry, eio};
use super::header::{Header, be32, be64};
use super::host::Host;
use serde_json::{Value, json};
use std::io;

/// Largest table, QEMU's limit.
const MAX_TABLE: u64 = 64 << 20;
/// Bytes of an entry before its variable part.
const FIXED: u64 = 40;
/// Most extra data of an entry, QEMU's limit.
const MAX_EXTRA: u64 = 1024;

/// One snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub id: String,
    pub name: String,
    pub l1_offset: u64,
    pub l1_size: u32,
    seconds: u32,
    nanoseconds: u32,
    clock: u64,
    state: u64,
    icount: Option<u64>,
}

impl Snapshot {
    /// QAPI's `SnapshotInfo`.
    pub fn info(&self) -> Value {
        let mut v = json!({
            "id": self.id,
            "name": self.name,
            "vm-state-size": self.state,
            "date-sec": self.seconds,
            "date-nsec": self.nanoseconds,
            "vm-clock-sec": self.clock / 1_000_000_000,
            "vm-clock-nsec": self.clock % 1_000_000_000,
        });
        if let (Some(n), Some(map)) = (self.icount, v.as_object_mut()) {
            map.insert("icount".into(), n.into());
        }
        v
    }
}

/// Reads the table: the snapshots, and the table's bytes.
///
/// # Errors
/// It is not in the file, or contradicts itself.
pub(super) fn load(h: &Header, host: &Host) -> io::Result<(Vec<Snapshot>, u64)> {
    let geo: Geometry = h.geometry();
    let (mut found, mut at, mut tables) = (vec![], 0u64, 0u64);
    for _ in 0..h.snapshots {
        let start = h.snapshots_offset.checked_add(at).ok_or_else(eio)?;
        let fixed = host.read_all(start, FIXED)?;
        let extra = u64::from(be32(&fixed, 36));
        let (id_len, name_len) = (u64::from(be32(&fixed, 12) >> 16), u64::from(be32(&fixed, 12) & 0xffff));
        if extra > MAX_EXTRA {
            return Err(eio());
        }
        let whole = FIXED + extra + id_len + name_len;
        let entry = host.read_all(start, whole)?;
        let text = |from: u64, len: u64| {
            let bytes = entry.get(from as usize..(from + len) as usize).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let s = Snapshot {
            l1_offset: be64(&entry, 0),
            l1_size: be32(&entry, 8),
            id: text(FIXED + extra, id_len),
            name: text(FIXED + extra + id_len, name_len),
            seconds: be32(&entry, 16),
            nanoseconds: be32(&entry, 20),
            clock: be64(&entry, 24),
            state: if extra >= 8 { be64(&entry, 40) } else { u64::from(be32(&entry, 32)) },
            icount: Some(be64(&entry, 56)).filter(|n| extra >= 24 && *n != u64::MAX),
        };
        let l1 = u64::from(s.l1_size) * 8;
        if !s.l1_offset.is_multiple_of(geo.cluster())
            || l1 > super::header::MAX_L1
            || !host.contains(s.l1_offset, l1)?
        {
            return Err(eio());
        }
        // (Sparse files are free, and all tables together are looked through.)
        tables += l1;
        if tables > MAX_TABLE {
            return Err(eio());
        }
        found.push(s);
        at += whole.next_multiple_of(8);
        if at > MAX_TABLE {
            return Err(eio());
        }
    }
    Ok((found, at))
}
