//! The header and its extensions. Source: the qcow2 specification, "Header", "Header extensions", "Feature name table".

use super::geometry::Geometry;
use qom::{Error, Result};

/// `QFI\xfb`.
const MAGIC: u32 = 0x5146_49fb;
/// Bytes of version 2's header.
const V2_LEN: usize = 72;
/// Bytes of version 3's header without its optional part.
const V3_LEN: usize = 104;
/// Longest name of a backing file.
const MAX_NAME: usize = 1023;
/// Largest active L1 table, QEMU's limit.
pub(super) const MAX_L1: u64 = 32 << 20;
/// Largest refcount table, QEMU's limit.
pub(super) const MAX_REFTABLE: u64 = 8 << 20;
/// Most snapshots, QEMU's limit.
const MAX_SNAPSHOTS: u32 = 65536;

/// Incompatible features: refcounts may be wrong.
pub(super) const DIRTY: u64 = 1;
/// Something is known to be wrong.
pub(super) const CORRUPT: u64 = 1 << 1;
/// Guest clusters are in another file.
const DATA_FILE: u64 = 1 << 2;
/// `compression_type` is not zlib.
const COMPRESSION: u64 = 1 << 3;
/// Entries of 16 bytes, with subclusters.
const EXTENDED_L2: u64 = 1 << 4;
/// Compatible feature: refcounts may be written late.
const LAZY_REFCOUNTS: u64 = 1;
/// Autoclear features: persistent bitmaps are up to date.
const BITMAPS: u64 = 1;
/// The data file alone holds what the guest sees.
const RAW_DATA_FILE: u64 = 1 << 1;

/// Where `incompatible_features` is.
pub(super) const AT_INCOMPATIBLE: u64 = 72;
/// Where `autoclear_features` is.
const AT_AUTOCLEAR: u64 = 88;
/// Where `size` is.
pub(super) const AT_SIZE: u64 = 24;
/// Where `l1_size` and `l1_table_offset` are.
pub(super) const AT_L1: u64 = 36;
/// Where `refcount_table_offset` and `refcount_table_clusters` are.
pub(super) const AT_REFTABLE: u64 = 48;

/// How compressed clusters are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Compression {
    /// Raw deflate.
    #[default]
    Zlib,
    /// A zstd frame.
    Zstd,
}

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    pub size: u64,
    pub l1_size: u32,
    pub l1_offset: u64,
    pub reftable_offset: u64,
    pub reftable_clusters: u32,
    pub snapshots: u32,
    pub snapshots_offset: u64,
    pub incompatible: u64,
    pub compatible: u64,
    pub autoclear: u64,
    pub refcount_order: u32,
    pub compression: Compression,
    pub backing: Option<String>,
    pub backing_format: Option<String>,
    pub data_file: Option<String>,
    /// There is an extension about persistent bitmaps.
    pub bitmaps: bool,
}

fn bad(text: impl Into<String>) -> Error {
    Error::generic(text.into())
}

/// Big-endian numbers of a buffer; zeros beyond its end.
pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    let part = at.checked_add(8).and_then(|end| bytes.get(at..end)).and_then(|b| b.try_into().ok());
    u64::from_be_bytes(part.unwrap_or_default())
}

/// As [`be64`], of four bytes.
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    let part = at.checked_add(4).and_then(|end| bytes.get(at..end)).and_then(|b| b.try_into().ok());
    u32::from_be_bytes(part.unwrap_or_default())
}

/// The size of a cluster, if `head` begins a header that says a possible one.
///
/// # Errors
/// It does not.
pub(super) fn cluster_bits(head: &[u8]) -> Result<u32> {
    if be32(head, 0) != MAGIC || head.len() < V3_LEN {
        return Err(bad("Image is not in qcow2 format"));
    }
    let version = be32(head, 4);
    if version != 2 && version != 3 {
        return Err(bad(format!("Unsupported qcow2 version {version}")));
    }
    match be32(head, 20) {
        bits @ 9..=21 => Ok(bits),
        bits => Err(bad(format!("Unsupported cluster size: 2^{bits}"))),
    }
}

impl Header {
    /// Reads the header from the first cluster.
    ///
    /// # Errors
    /// It is none, contradicts itself, or needs what is not supported.
    pub fn parse(first: &[u8]) -> Result<Self> {
        let bits = cluster_bits(first)?;
        let version = be32(first, 4);
        let v3 = version == 3;
        let word = |at: usize| if v3 { be64(first, at) } else { 0 };
        let length = if v3 { be32(first, 100) as usize } else { V2_LEN };
        if v3 && length < V3_LEN {
            return Err(bad("qcow2 header too short"));
        }
        if length > first.len() || first.len() != 1 << bits {
            return Err(bad("qcow2 header exceeds cluster size"));
        }
        let mut h = Self {
            version,
            cluster_bits: bits,
            size: be64(first, 24),
            l1_size: be32(first, 36),
            l1_offset: be64(first, 40),
            reftable_offset: be64(first, 48),
            reftable_clusters: be32(first, 56),
            snapshots: be32(first, 60),
            snapshots_offset: be64(first, 64),
            incompatible: word(72),
            compatible: word(80),
            autoclear: word(88),
            refcount_order: if v3 { be32(first, 96) } else { 4 },
            compression: Compression::Zlib,
            backing: None,
            backing_format: None,
            data_file: None,
            bitmaps: false,
        };
        let names = h.extensions(first, length)?;
        h.check_features(&names)?;
        if be32(first, 32) != 0 {
            return Err(bad("encrypted qcow2 images are not supported"));
        }
        if v3 && length > V3_LEN {
            h.compression = match first.get(V3_LEN) {
                Some(0) | None => Compression::Zlib,
                Some(1) => Compression::Zstd,
                Some(n) => return Err(bad(format!("qcow2: unknown compression type: {n}"))),
            };
        }
        if (h.compression == Compression::Zstd) != (h.incompatible & COMPRESSION != 0) {
            return Err(bad(
                "qcow2: Compression type incompatible feature bit must be set exactly when it is not zlib",
            ));
        }
        if h.refcount_order > 6 {
            return Err(bad("Reference count entry width too large; may not exceed 64 bits"));
        }
        h.backing = backing_name(first)?;
        h.check_tables()?;
        Ok(h)
    }

    /// Reads the extensions; answers the feature names: kind, bit and name.
    fn extensions(&mut self, first: &[u8], length: usize) -> Result<Vec<(u8, u8, String)>> {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let end = match be64(first, 8) {
            0 => first.len(),
            at => (at as usize).min(first.len()),
        };
        let (mut at, mut names) = (length, vec![]);
        while at + 8 <= end {
            let (kind, len) = (be32(first, at), be32(first, at + 4) as usize);
            at += 8;
            if kind == 0 {
                break;
            }
            let Some(body) = first.get(at..end).and_then(|rest| rest.get(..len)) else {
                return Err(bad("Header extension too large"));
            };
            match kind {
                0xe279_2aca => self.backing_format = Some(text(body)),
                0x4441_5441 => self.data_file = Some(text(body)),
                0x2385_2875 => self.bitmaps = true,
                0x6803_f857 => {
                    for row in body.chunks_exact(48) {
                        if let [kind, bit, name @ ..] = row {
                            let name = name.split(|b| *b == 0).next().unwrap_or_default();
                            names.push((*kind, *bit, text(name)));
                        }
                    }
                }
                _ => {} // whoever does not know an extension leaves it alone
            }
            at += len.next_multiple_of(8);
        }
        Ok(names)
    }

    fn check_features(&self, names: &[(u8, u8, String)]) -> Result<()> {
        let known = DIRTY | CORRUPT | DATA_FILE | COMPRESSION;
        let unknown: Vec<String> = (0..64u8)
            .filter(|bit| self.incompatible & !known & (1 << bit) != 0)
            .map(|bit| match names.iter().find(|n| n.0 == 0 && n.1 == bit) {
                Some((.., name)) => name.clone(),
                None if EXTENDED_L2 == 1 << bit => "extended L2 entries".into(),
                None => format!("Unknown incompatible feature: {:x}", 1u64 << bit),
            })
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(bad(format!("Unsupported qcow2 feature(s): {}", unknown.join(", "))))
    }

    fn check_tables(&self) -> Result<()> {
        let geo = self.geometry();
        let table = |name: &str, at: u64, len: u64| match at.checked_add(len) {
            Some(end) if at.is_multiple_of(geo.cluster()) && i64::try_from(end).is_ok() => Ok(()),
            _ => Err(bad(format!("{name} offset invalid"))),
        };
        if self.reftable_clusters == 0 {
            return Err(bad("Image does not contain a reference count table"));
        }
        let len = u64::from(self.reftable_clusters) << self.cluster_bits;
        if len > MAX_REFTABLE {
            return Err(bad("Image has a reference count table that is too large"));
        }
        table("Reference count table", self.reftable_offset, len)?;
        if self.snapshots > MAX_SNAPSHOTS {
            return Err(bad("Snapshot table too large"));
        }
        if self.snapshots > 0 {
            table("Snapshot table", self.snapshots_offset, 0)?;
        }
        let l1 = u64::from(self.l1_size) * 8;
        if l1 > MAX_L1 {
            return Err(bad("Active L1 table too large"));
        }
        table("Active L1 table", self.l1_offset, l1)?;
        let needed = geo.l1_entries(self.size).filter(|n| n * 8 <= MAX_L1);
        let needed = needed.ok_or_else(|| bad("Image is too big"))?;
        if needed > u64::from(self.l1_size) {
            return Err(bad("L1 table is too small"));
        }
        Ok(())
    }

    /// The sizes that follow from it.
    pub fn geometry(&self) -> Geometry {
        Geometry { cluster_bits: self.cluster_bits, refcount_order: self.refcount_order, v3: self.version == 3 }
    }

    /// Whether refcounts may be wrong.
    pub fn is_dirty(&self) -> bool {
        self.incompatible & DIRTY != 0
    }

    /// Whether somebody found it corrupt.
    pub fn is_corrupt(&self) -> bool {
        self.incompatible & CORRUPT != 0
    }

    /// Whether guest clusters are in another file.
    pub fn has_data_file(&self) -> bool {
        self.incompatible & DATA_FILE != 0
    }

    /// Whether that file alone holds what the guest sees.
    pub fn is_data_file_raw(&self) -> bool {
        self.has_data_file() && self.autoclear & RAW_DATA_FILE != 0
    }

    /// `lazy-refcounts`.
    pub fn lazy_refcounts(&self) -> bool {
        self.compatible & LAZY_REFCOUNTS != 0
    }

    /// Bits to write on opening for writing: `incompatible_features` and `autoclear_features`, if they change. What we do not keep up
    /// to date (bitmaps, and what we have never heard of) loses its autoclear bit.
    pub fn for_writing(&mut self) -> Vec<(u64, u64)> {
        let mut changes = vec![];
        if self.version < 3 {
            return changes;
        }
        let kept = self.autoclear & if self.has_data_file() { RAW_DATA_FILE } else { 0 };
        if kept != self.autoclear {
            self.autoclear = kept;
            changes.push((AT_AUTOCLEAR, kept));
        }
        if self.is_dirty() {
            self.incompatible &= !DIRTY;
            changes.push((AT_INCOMPATIBLE, self.incompatible));
        }
        changes
    }

    /// Whether persistent bitmaps occupy clusters that only they name.
    pub fn has_bitmaps(&self) -> bool {
        self.bitmaps && self.autoclear & BITMAPS != 0
    }
}

fn backing_name(first: &[u8]) -> Result<Option<String>> {
    let (at, len) = (be64(first, 8), be32(first, 16) as usize);
    if at == 0 || len == 0 {
        return Ok(None);
    }
    if len > MAX_NAME {
        return Err(bad("Backing file name too long"));
    }
    let at = usize::try_from(at).map_err(|_| bad("Invalid backing file offset"))?;
    let name = first.get(at..).and_then(|rest| rest.get(..len));
    let name = name.ok_or_else(|| bad("Invalid backing file offset"))?;
    match std::str::from_utf8(name) {
        Ok(name) if !name.contains('\0') => Ok(Some(name.to_owned())),
        _ => Err(bad("Invalid backing file name")),
    }
}
