//! Sizes that follow from the header, and what the entries of the tables say. Source: the qcow2 specification, "Host cluster
//! management", "Cluster mapping".

use std::io;

/// Entry of an L1 or L2 table: nobody else refers to what it names, which may be written in place.
pub(super) const COPIED: u64 = 1 << 63;
/// Entry of an L2 table: compressed.
const COMPRESSED: u64 = 1 << 62;
/// Entry of an L2 table: reads as zeros.
pub(super) const ZERO: u64 = 1;
/// The offset in an entry.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The offset in an entry of the refcount table.
pub(super) const REFBLOCK: u64 = !0x1ff;

/// The sizes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub cluster_bits: u32,
    /// Refcounts have 2 to this power bits.
    pub refcount_order: u32,
    /// There are zero flags.
    pub v3: bool,
}

/// Where a guest cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the backing file, else zeros.
    Nowhere,
    /// Reads as zeros; a host cluster may be kept for it.
    Zero { at: Option<u64>, copied: bool },
    /// In a host cluster.
    Here { at: u64, copied: bool },
    /// Compressed: first byte, and bytes up to the end of the last sector.
    Compressed { at: u64, len: u64 },
}

/// An input or output error, as the guest sees it.
pub(super) fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl Geometry {
    /// Bytes of a cluster.
    pub fn cluster(self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of an L2 table.
    pub fn l2_entries(self) -> u64 {
        self.cluster() / 8
    }

    /// Guest bytes that one L2 table maps.
    pub fn l2_span(self) -> u64 {
        self.cluster() * self.l2_entries()
    }

    /// Entries of a refcount block.
    pub fn refblock_entries(self) -> u64 {
        (self.cluster() * 8) >> self.refcount_order
    }

    /// L1 entries that an image of `size` bytes needs.
    pub fn l1_entries(self, size: u64) -> Option<u64> {
        i64::try_from(size).ok()?;
        Some(size.div_ceil(self.l2_span()))
    }

    /// Index into the L1 table and into the L2 table.
    pub fn indices(self, guest: u64) -> (usize, usize) {
        let cluster = guest >> self.cluster_bits;
        ((cluster / self.l2_entries()) as usize, (cluster % self.l2_entries()) as usize)
    }

    /// Start of the cluster that `offset` lies in.
    pub fn floor(self, offset: u64) -> u64 {
        offset & !(self.cluster() - 1)
    }

    /// Understands an L2 entry.
    ///
    /// # Errors
    /// Its offset is not at a cluster.
    pub fn place(self, entry: u64) -> io::Result<Place> {
        if entry & COMPRESSED != 0 {
            let shift = 62 - (self.cluster_bits - 8);
            let at = entry & ((1 << shift) - 1);
            let sectors = ((entry >> shift) & ((1 << (self.cluster_bits - 8)) - 1)) + 1;
            return Ok(Place::Compressed { at, len: sectors * 512 - at % 512 });
        }
        let (at, copied) = (entry & OFFSET, entry & COPIED != 0);
        if at % self.cluster() != 0 {
            return Err(eio());
        }
        Ok(match (self.v3 && entry & ZERO != 0, at) {
            (true, 0) => Place::Zero { at: None, copied },
            (true, _) => Place::Zero { at: Some(at), copied },
            (false, 0) if copied => Place::Here { at: 0, copied }, // the first cluster of a data file
            (false, 0) => Place::Nowhere,
            (false, _) => Place::Here { at, copied },
        })
    }

    /// Pieces of a range, by guest cluster: where the piece begins, and its bytes.
    pub fn pieces(self, offset: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
        let end = offset + len;
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let stop = end.min(self.floor(at) + self.cluster());
            let piece = (at, stop - at);
            at = stop;
            Some(piece)
        })
    }
}
