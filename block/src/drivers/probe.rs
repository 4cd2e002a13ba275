//! Which format an image has, by its first bytes. Sources: the magic numbers of the formats' specifications.

/// Bytes looked at.
pub const HEAD: usize = 512;

/// Name, offset and bytes.
const MAGIC: &[(&str, usize, &[u8])] = &[
    ("qcow2", 0, b"QFI\xfb\0\0\0\x02"),
    ("qcow2", 0, b"QFI\xfb\0\0\0\x03"),
    ("qcow", 0, b"QFI\xfb\0\0\0\x01"),
    ("vmdk", 0, b"KDMV"),
    ("vmdk", 0, b"COWD"),
    ("vmdk", 0, b"# Disk DescriptorFile"),
    ("vdi", 64, &[0x7f, 0x10, 0xda, 0xbe]),
    ("vhdx", 0, b"vhdxfile"),
    ("vpc", 0, b"conectix"),
    ("qed", 0, b"QED\0"),
    ("luks", 0, b"LUKS\xba\xbe"),
    ("parallels", 0, b"WithoutFreeSpace"),
    ("parallels", 0, b"WithouFreSpacExt"),
    ("bochs", 0, b"Bochs Virtual HD Image\0"),
];

/// The format of an image that begins with `head`; `raw` if it is none of those known.
pub fn format_of(head: &[u8]) -> &'static str {
    let fits = |at: usize, bytes: &[u8]| head.get(at..at + bytes.len()) == Some(bytes);
    MAGIC.iter().find(|(_, at, bytes)| fits(*at, bytes)).map_or("raw", |m| m.0)
}
