//! Kinds of floppy drives, and what an image of which size is: sectors per track, tracks, sides and data rate.
//! Source: ISO 8860 (720 KiB), ISO 9529 (1.44 MiB), ECMA-147 (2.88 MiB), ISO 8630 (1.2 MiB), ISO 7487 (360 KiB) for the common ones; the rest
//! are the sizes that QEMU knows. All sectors have 512 bytes.

use qom::PropEnum;

/// Kinds of floppy drives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PropEnum)]
#[qom(name = "FloppyDriveType")]
pub enum FloppyDriveType {
    /// 3.5 inch, 1.44 MB.
    #[qom(name = "144")]
    D144,
    /// 3.5 inch, 2.88 MB.
    #[qom(name = "288")]
    D288,
    /// 5.25 inch, 1.2 MB.
    #[qom(name = "120")]
    D120,
    /// None.
    None,
    /// By the medium.
    #[default]
    Auto,
}

impl FloppyDriveType {
    /// Disks of 3.5 or of 5.25 inches, in tenths; 0: no drive.
    fn inches(self) -> u32 {
        match self {
            Self::D144 | Self::D288 => 35,
            Self::D120 => 52,
            Self::None | Self::Auto => 0,
        }
    }

    /// Number of this kind in CMOS and in ACPI's `_FDI`; 0: no drive.
    pub fn cmos(self) -> u8 {
        match self {
            Self::D120 => 2,
            Self::D144 => 4,
            Self::D288 => 5,
            Self::None | Self::Auto => 0,
        }
    }

    /// The largest number of tracks, sectors per track and sides of this kind's disks.
    pub fn limits(self) -> (u8, u8, u8) {
        FORMATS
            .iter()
            .filter(|f| f.drive == self)
            .fold((0, 0, 0), |(t, s, h), f| (t.max(f.tracks), s.max(f.sectors), h.max(f.sides)))
    }
}

/// Data rates as the data rate select register names them. 82077AA (290166) §2.1.6.
pub mod rate {
    /// 500 kbit/s.
    pub const R500: u8 = 0;
    /// 300 kbit/s.
    pub const R300: u8 = 1;
    /// 250 kbit/s.
    pub const R250: u8 = 2;
    /// 1 Mbit/s.
    pub const R1000: u8 = 3;
}

/// How a disk is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// The drive it belongs to.
    pub drive: FloppyDriveType,
    /// Sectors per track.
    pub sectors: u8,
    /// Tracks of a side.
    pub tracks: u8,
    /// Sides.
    pub sides: u8,
    /// Data rate, of [`rate`].
    pub rate: u8,
}

impl Format {
    /// Sectors of the whole disk.
    pub fn size(&self) -> u64 {
        u64::from(self.sectors) * u64::from(self.tracks) * u64::from(self.sides)
    }
}

const fn f(drive: FloppyDriveType, sectors: u8, tracks: u8, sides: u8, rate: u8) -> Format {
    Format { drive, sectors, tracks, sides, rate }
}

use FloppyDriveType::{D120, D144, D288};
use rate::{R250, R300, R500, R1000};

/// All formats. The first of a drive is what an image of no known size is taken for.
pub const FORMATS: &[Format] = &[
    f(D144, 18, 80, 2, R500),
    f(D144, 20, 80, 2, R500),
    f(D144, 21, 80, 2, R500),
    f(D144, 21, 82, 2, R500),
    f(D144, 21, 83, 2, R500),
    f(D144, 22, 80, 2, R500),
    f(D144, 23, 80, 2, R500),
    f(D144, 24, 80, 2, R500),
    f(D288, 36, 80, 2, R1000),
    f(D288, 39, 80, 2, R1000),
    f(D288, 40, 80, 2, R1000),
    f(D288, 44, 80, 2, R1000),
    f(D288, 48, 80, 2, R1000),
    f(D144, 9, 80, 2, R250),
    f(D144, 10, 80, 2, R250),
    f(D144, 10, 82, 2, R250),
    f(D144, 10, 83, 2, R250),
    f(D144, 13, 80, 2, R250),
    f(D144, 14, 80, 2, R250),
    f(D120, 15, 80, 2, R500),
    f(D120, 18, 80, 2, R500),
    f(D120, 18, 82, 2, R500),
    f(D120, 18, 83, 2, R500),
    f(D120, 20, 80, 2, R500),
    f(D120, 9, 80, 2, R250),
    f(D120, 11, 80, 2, R250),
    f(D120, 9, 40, 2, R300),
    f(D120, 9, 40, 1, R300),
    f(D120, 10, 41, 2, R300),
    f(D120, 10, 42, 2, R300),
    f(D120, 8, 40, 2, R250),
    f(D120, 8, 40, 1, R250),
    f(D144, 9, 80, 1, R250),
];

/// What a disk of `size` sectors is in a drive of this kind; `fallback`: what an unknown disk in a drive of kind `auto` is taken for.
/// A disk of a size that drives of another kind have, but of the same diameter, keeps its format.
pub fn detect(drive: FloppyDriveType, fallback: FloppyDriveType, size: u64) -> Option<&'static Format> {
    let auto = drive == FloppyDriveType::Auto;
    let own = if auto { fallback } else { drive };
    let fits = |f: &&Format| f.size() == size;
    let exact = FORMATS.iter().filter(fits).find(|f| auto || f.drive == drive);
    let same_disk = || FORMATS.iter().filter(fits).find(|f| f.drive.inches() == drive.inches());
    let default = || FORMATS.iter().find(|f| f.drive == own);
    exact.or_else(same_disk).or_else(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_known_by_their_size() {
        let auto = |sectors| detect(FloppyDriveType::Auto, D288, sectors).map(|f| (f.drive, f.sectors, f.rate));
        assert_eq!(auto(2880), Some((D144, 18, R500)));
        assert_eq!(auto(5760), Some((D288, 36, R1000)));
        assert_eq!(auto(1440), Some((D144, 9, R250)));
        assert_eq!(auto(2400), Some((D120, 15, R500)));
        assert_eq!(auto(720), Some((D120, 9, R300)));
        // of no known size
        assert_eq!(auto(1), Some((D288, 36, R1000)));
        assert_eq!(detect(D144, D288, 1).map(|f| f.sectors), Some(18));
        // in another drive of that diameter, and of the other
        assert_eq!(detect(D288, D288, 2880).map(|f| f.sectors), Some(18));
        assert_eq!(detect(D120, D288, 5760).map(|f| f.sectors), Some(15));
        assert_eq!(detect(FloppyDriveType::None, D288, 1), None);
    }

    #[test]
    fn drives_have_limits() {
        assert_eq!((D144.limits(), D288.limits(), D120.limits()), ((83, 24, 2), (80, 48, 2), (83, 20, 2)));
    }
}
