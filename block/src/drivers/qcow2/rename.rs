//! Changes which backing file the header names. Source: the qcow2 specification, "Header", "Header extensions".
//!
//! The host writes a sector as a whole, a cluster not. So the new name goes to a place that the old header does not use, and then one write of
//! the first sector makes it count; the table of feature names, which only tells people about bits, gives way if that makes the extensions fit.
//! Where there is no such place (small clusters and long names, or many extensions) the name cannot be changed: of a header that is written over
//! several sectors a crash could leave half, and that is no image any more.

use super::geometry::eio;
use super::header::{be32, be64};
use super::host::Host;
use std::io;

/// What the host writes as a whole.
const SECTOR: usize = 512;
/// Longest name.
const MAX_NAME: usize = 1023;
/// Header extension: format of the backing file.
const FORMAT: u32 = 0xe279_2aca;
/// Header extension: names of features.
const FEATURES: u32 = 0x6803_f857;
/// Where `backing_file_offset` and `backing_file_size` are.
const AT_BACKING: usize = 8;

/// Its kind; head, bytes and padding.
type Extension = (u32, Vec<u8>);

/// The extensions of a header, their padding included, and where they end.
fn extensions(first: &[u8], length: usize) -> io::Result<(Vec<Extension>, usize)> {
    let end = match be64(first, AT_BACKING) {
        0 => first.len(),
        at => (at as usize).min(first.len()),
    };
    let (mut at, mut found) = (length, vec![]);
    while at + 8 <= end {
        let (kind, len) = (be32(first, at), be32(first, at + 4) as usize);
        if kind == 0 {
            return Ok((found, at + 8));
        }
        let stop = at.checked_add(8 + len.next_multiple_of(8)).filter(|stop| *stop <= end).ok_or_else(eio)?;
        found.push((kind, first.get(at..stop).ok_or_else(eio)?.to_vec()));
        at = stop;
    }
    Ok((found, at))
}

fn format_extension(format: &str) -> Vec<u8> {
    let mut bytes = FORMAT.to_be_bytes().to_vec();
    bytes.extend((format.len() as u32).to_be_bytes());
    bytes.extend(format.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Names the backing file and its format, or none.
///
/// # Errors
/// A name that is too long, no place for it that a crash leaves alone, or as the host says; the old name counts then.
pub(super) fn set_backing(file: &Host, cluster: u64, version: u32, name: Option<(&str, &str)>) -> io::Result<()> {
    let mut first = vec![0; cluster as usize];
    file.read(0, &mut first)?;
    let length = if version >= 3 { be32(&first, 100) as usize } else { 72 };
    let (old, old_end) = extensions(&first, length)?;
    let (old_at, old_len) = (be64(&first, AT_BACKING) as usize, be32(&first, AT_BACKING + 8) as usize);
    let (name, format) = name.unzip();
    let name = name.unwrap_or_default().as_bytes();
    if name.len() > MAX_NAME {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let head = |with_features: bool| {
        let mut bytes = first.get(..length).unwrap_or_default().to_vec();
        bytes.extend(format.filter(|f| !f.is_empty()).map(format_extension).unwrap_or_default());
        let kept = old.iter().filter(|(kind, _)| *kind != FORMAT && (with_features || *kind != FEATURES));
        kept.for_each(|(_, ext)| bytes.extend(ext));
        bytes.resize(bytes.len() + 8, 0);
        bytes
    };
    let mut whole = head(true);
    if whole.len() + name.len() > SECTOR && head(false).len() <= SECTOR {
        whole = head(false);
    }
    let beside = (whole.len() + name.len() <= SECTOR).then_some(whole.len());
    // Behind what the old header and the new one are, and before or behind the old name.
    let free = SECTOR.max(old_end);
    let places = [free, free.max(old_at + old_len)].map(|at| at.next_multiple_of(8));
    let apart = |at: usize| at + name.len() <= old_at || old_at + old_len <= at;
    let place = beside.or_else(|| places.into_iter().find(|at| at + name.len() <= first.len() && apart(*at)));
    let Some(at) = place.filter(|_| whole.len() <= SECTOR) else {
        return Err(io::Error::from_raw_os_error(libc::ENOSPC));
    };
    let (named_at, named_len) = if name.is_empty() { (0, 0) } else { (at as u64, name.len() as u32) };
    let fields = [&named_at.to_be_bytes()[..], &named_len.to_be_bytes()].concat();
    whole.get_mut(AT_BACKING..AT_BACKING + 12).ok_or_else(eio)?.copy_from_slice(&fields);
    if beside.is_some() {
        whole.extend(name);
    } else {
        file.write(at as u64, name)?;
        file.flush()?;
    }
    whole.resize(SECTOR, 0);
    file.write(0, &whole)?;
    file.flush()
}
