//! Compressed clusters. Sources: the qcow2 specification, "Compressed clusters"; RFC 1951; RFC 8878.

use super::geometry::eio;
use super::header::Compression;
use flate2::{Decompress, FlushDecompress, Status};
use std::io::{self, Read};

/// Unpacks a cluster; what follows the compressed data in its last sector does not matter.
///
/// # Errors
/// The data is not what it should be, or too short.
pub(super) fn unpack(kind: Compression, packed: &[u8], cluster: &mut [u8]) -> io::Result<()> {
    match kind {
        Compression::Zlib => {
            let mut d = Decompress::new(false);
            let status = d.decompress(packed, cluster, FlushDecompress::Finish).map_err(|_| eio())?;
            let whole = d.total_out() == cluster.len() as u64;
            // The stream's end mark need not have been reached when the cluster is full.
            if whole && matches!(status, Status::StreamEnd | Status::BufError | Status::Ok) {
                Ok(())
            } else {
                Err(eio())
            }
        }
        Compression::Zstd => {
            let mut d = ruzstd::decoding::StreamingDecoder::new(packed).map_err(|_| eio())?;
            d.read_exact(cluster).map_err(|_| eio())
        }
    }
}
