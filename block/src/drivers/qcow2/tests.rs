//! Headers that are wrong, and what the tables say.

use super::geometry::{COPIED, Geometry, Place, ZERO};
use super::header::Header;
use super::refcounts;

/// A good header of version 3 with clusters of 64 KiB, for 1 GiB.
fn good() -> Vec<u8> {
    let mut h = vec![0u8; 65536];
    let mut put = |at: usize, bytes: &[u8]| h[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &16u32.to_be_bytes());
    put(24, &(1u64 << 30).to_be_bytes());
    put(36, &2u32.to_be_bytes());
    put(40, &0x30000u64.to_be_bytes());
    put(48, &0x10000u64.to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    h
}

#[test]
fn bad_headers_say_what_is_wrong() {
    assert_eq!(Header::parse(&good()).unwrap().size, 1 << 30);
    let cases: &[(usize, &[u8], &str)] = &[
        (0, b"QFJ", "Image is not in qcow2 format"),
        (7, &[4], "Unsupported qcow2 version 4"),
        (23, &[8], "Unsupported cluster size: 2^8"),
        (23, &[22], "Unsupported cluster size: 2^22"),
        (20, &[0xff], "Unsupported cluster size: 2^4278190096"),
        (24, &[0xff], "Image is too big"),
        (24, &[0, 0, 1], "L1 table is too small"),
        (35, &[1], "encrypted qcow2 images are not supported"),
        (36, &[0xff], "Active L1 table too large"),
        (39, &[1], "L1 table is too small"),
        (47, &[1], "Active L1 table offset invalid"),
        (40, &[0xff; 6], "Active L1 table offset invalid"),
        (55, &[8], "Reference count table offset invalid"),
        (59, &[0], "Image does not contain a reference count table"),
        (56, &[1], "Image has a reference count table that is too large"),
        (60, &[1], "Snapshot table too large"),
        (60, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1], "Snapshot table offset invalid"),
        (79, &[0x10], "Unsupported qcow2 feature(s): extended L2 entries"),
        (72, &[0x80], "Unsupported qcow2 feature(s): Unknown incompatible feature: 8000000000000000"),
        (79, &[8], "qcow2: Compression type incompatible feature bit must be set exactly when it is not zlib"),
        (99, &[7], "Reference count entry width too large; may not exceed 64 bits"),
        (103, &[100], "qcow2 header too short"),
        (100, &[0, 2], "qcow2 header exceeds cluster size"),
        (104, &[0xe2, 0x79, 0x2a, 0xca, 0xff], "Header extension too large"),
        (8, &[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 9], "Invalid backing file offset"),
        (8, &[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 4, 0], "Backing file name too long"),
        (8, &[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 9], "Invalid backing file name"),
    ];
    for (at, bytes, message) in cases {
        let mut h = good();
        h[*at..at + bytes.len()].copy_from_slice(bytes);
        let said = Header::parse(&h).map(drop).map_err(|e| e.to_string());
        assert_eq!(said, Err((*message).to_owned()), "at {at}");
    }
    for len in [0, 8, 103, 104, 65535] {
        assert!(Header::parse(&good()[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn entries_say_where_clusters_are() {
    let geo = Geometry { cluster_bits: 16, refcount_order: 4, v3: true };
    let v2 = Geometry { v3: false, ..geo };
    assert_eq!(geo.place(0).unwrap(), Place::Nowhere);
    assert_eq!(geo.place(0x50000 | COPIED).unwrap(), Place::Here { at: 0x50000, copied: true });
    assert_eq!(geo.place(0x50000 | ZERO).unwrap(), Place::Zero { at: Some(0x50000), copied: false });
    assert_eq!(v2.place(0x50000 | ZERO).unwrap(), Place::Here { at: 0x50000, copied: false });
    assert_eq!(
        geo.place(1 << 62 | 3 << 54 | 0x50123).unwrap(),
        Place::Compressed { at: 0x50123, len: 4 * 512 - 0x123 }
    );
    assert!(geo.place(0x50200 | COPIED).is_err());
}

#[test]
fn refcounts_of_every_width_keep_to_themselves() {
    for order in 0..=6 {
        let geo = Geometry { cluster_bits: 9, refcount_order: order, v3: true };
        let most = if order == 6 { u64::MAX } else { (1 << (1u64 << order)) - 1 };
        let mut block = vec![0; 512];
        for n in (0..geo.refblock_entries()).step_by(2) {
            refcounts::put(&mut block, geo, n, most).unwrap();
        }
        for n in 0..geo.refblock_entries() {
            assert_eq!(refcounts::get(&block, geo, n), if n % 2 == 0 { most } else { 0 }, "width 2^{order}, {n}");
        }
        assert!(order == 6 || refcounts::put(&mut block, geo, 0, most + 1).is_err());
    }
    let geo = Geometry { cluster_bits: 9, refcount_order: 1, v3: true };
    let mut block = vec![0; 512];
    refcounts::put(&mut block, geo, 1, 2).unwrap();
    assert_eq!(block[0], 0b1000, "the first of a byte has the lowest bits");
}
