//! New images: version 3, clusters of 64 KiB, refcounts of 16 bits, with a backing file. Source: the qcow2 specification, "Header".

use super::header::MAX_L1;
use crate::node::Node;
use std::io;

const CLUSTER: usize = 64 << 10;

/// Makes an image of `size` bytes in `file`, over what was there.
///
/// # Errors
/// Too large, a name that is too long, or as the host says.
pub(crate) fn create(file: &Node, size: u64, backing: &str, format: &str) -> io::Result<()> {
    let span = CLUSTER as u64 * (CLUSTER as u64 / 8);
    let l1 = size.div_ceil(span);
    if l1 * 8 > MAX_L1 || backing.len() > 1023 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let l1_clusters = (l1 as usize * 8).div_ceil(CLUSTER).max(1);
    let at = |cluster: usize| (cluster * CLUSTER) as u64;
    let mut header: Vec<u8> = vec![];
    let mut extension = 0xe279_2acau32.to_be_bytes().to_vec();
    extension.extend((format.len() as u32).to_be_bytes());
    extension.extend(format.as_bytes());
    extension.resize(extension.len().next_multiple_of(8) + 8, 0); // and the end of extensions
    header.extend(b"QFI\xfb\0\0\0\x03");
    header.extend((112 + extension.len() as u64).to_be_bytes());
    header.extend((backing.len() as u32).to_be_bytes());
    header.extend(16u32.to_be_bytes());
    header.extend(size.to_be_bytes());
    header.extend(0u32.to_be_bytes()); // not encrypted
    header.extend((l1 as u32).to_be_bytes());
    for word in [at(3), at(1)] {
        header.extend(word.to_be_bytes());
    }
    header.extend(1u32.to_be_bytes()); // clusters of the refcount table
    header.resize(96, 0); // no snapshots, no features
    header.extend(4u32.to_be_bytes());
    header.extend(112u32.to_be_bytes());
    header.resize(112, 0);
    header.extend(extension);
    header.extend(backing.as_bytes());
    header.resize(CLUSTER, 0);
    let mut table = at(2).to_be_bytes().to_vec();
    table.resize(CLUSTER, 0);
    let mut counts = 1u16.to_be_bytes().repeat(3 + l1_clusters);
    counts.resize(CLUSTER, 0);
    file.resize(0)?;
    file.write(0, &[header, table, counts, vec![0; l1_clusters * CLUSTER]].concat())?;
    file.flush()
}
