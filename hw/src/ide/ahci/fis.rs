//! What controller and device say to each other, and what lies in memory for it: frame information structures, command headers,
//! physical region descriptors. Source: Serial ATA 3.0 §10.3 (FIS types), AHCI 1.3.1 §4.2 (FIS receive area, command list, command table).
//! Not made: DMA setup, DMA activate, BIST and unknown FISes, which no driver looks at.

/// Bytes of a command header and of a command FIS as a device takes it.
pub const HEADER: usize = 32;
/// Bytes of a register FIS.
pub const REGISTER: usize = 20;
/// Bytes of a descriptor.
pub const PRD: u64 = 16;
/// Where the ATAPI command and the descriptors are in a command table.
pub const ACMD: u64 = 0x40;
/// The descriptors.
pub const PRDT: u64 = 0x80;
/// Where FISes are put in the receive area: PIO setup, device to host register, set device bits.
pub mod area {
    /// PIO setup.
    pub const PSFIS: u64 = 0x20;
    /// Device to host register.
    pub const RFIS: u64 = 0x40;
    /// Set device bits.
    pub const SDBFIS: u64 = 0x58;
}

/// FIS types.
const H2D: u8 = 0x27;
const D2H: u8 = 0x34;
const PIO_SETUP: u8 = 0x5f;
const SDB: u8 = 0xa1;
/// Second byte of a FIS: it is a command (host to device), interrupt, from device to host.
const COMMAND: u8 = 0x80;
const INTERRUPT: u8 = 0x40;
const FROM_DEVICE: u8 = 0x20;

/// Little-endian number at `at` of up to 8 bytes; what is beyond the end counts as zero.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes.iter().skip(at).take(len).rev().fold(0, |v, b| v << 8 | u64::from(*b))
}

/// A command header. §4.2.2
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the command FIS.
    pub fis_len: u8,
    /// Descriptors.
    pub prds: u16,
    /// Where the command table is.
    pub table: u64,
}

impl Header {
    /// Reads a header from memory.
    pub fn parse(bytes: &[u8; HEADER]) -> Self {
        let flags = number(bytes, 0, 2) as u16;
        Self { fis_len: (flags as u8 & 0x1f) * 4, prds: number(bytes, 2, 2) as u16, table: number(bytes, 8, 8) & !0x7f }
    }
}

/// A physical region descriptor. §4.2.3.3
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prd {
    /// First byte.
    pub addr: u64,
    /// Bytes: 2 to 4 MiB.
    pub len: u64,
    /// PxIS.DPS is set when all of it was moved.
    pub interrupt: bool,
}

impl Prd {
    /// Reads a descriptor.
    pub fn parse(bytes: &[u8]) -> Self {
        let count = number(bytes, 12, 4);
        Self { addr: number(bytes, 0, 8) & !1, len: (count & 0x3f_ffff | 1) + 1, interrupt: count >> 31 != 0 }
    }
}

/// A register FIS from host to device. SATA §10.3.4
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The command register is written; else the control register.
    pub is_command: bool,
    /// Port of a multiplier.
    pub port: u8,
    /// Command.
    pub command: u8,
    /// Features, with its previous contents in the high byte, as all that follow.
    pub features: u16,
    /// Sector address.
    pub lba: u64,
    /// Device register.
    pub device: u8,
    /// Sector count.
    pub count: u16,
    /// Device control.
    pub control: u8,
}

impl Command {
    /// Reads a FIS; `None`: it is another.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [kind, flags, command, f0, l0, l1, l2, device, l3, l4, l5, f1, c0, c1, _, control, ..] = *bytes else {
            return None;
        };
        (kind == H2D).then(|| Self {
            is_command: flags & COMMAND != 0,
            port: flags & 0x0f,
            command,
            features: u16::from_le_bytes([f0, f1]),
            lba: u64::from_le_bytes([l0, l1, l2, l3, l4, l5, 0, 0]),
            device,
            count: u16::from_le_bytes([c0, c1]),
            control,
        })
    }
}

/// What a device's registers say, as FISes carry it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskFile {
    /// Status.
    pub status: u8,
    /// Error.
    pub error: u8,
    /// Sector address, 48 bits.
    pub lba: u64,
    /// Device register.
    pub device: u8,
    /// Sector count.
    pub count: u16,
}

impl TaskFile {
    /// As PxTFD shows it.
    pub fn tfd(&self) -> u32 {
        u32::from(self.error) << 8 | u32::from(self.status)
    }

    /// As PxSIG shows it. AHCI §3.3.9
    pub fn signature(&self) -> u32 {
        (self.lba as u32 & 0xff_ffff) << 8 | u32::from(self.count & 0xff)
    }

    fn fis(&self, kind: u8, flags: u8) -> [u8; REGISTER] {
        let [l0, l1, l2, l3, l4, l5, ..] = self.lba.to_le_bytes();
        let [c0, c1] = self.count.to_le_bytes();
        let (status, error, device) = (self.status, self.error, self.device);
        [kind, flags, status, error, l0, l1, l2, device, l3, l4, l5, 0, c0, c1, 0, 0, 0, 0, 0, 0]
    }

    /// The register FIS from device to host. SATA §10.3.5
    pub fn d2h(&self, interrupt: bool) -> [u8; REGISTER] {
        self.fis(D2H, if interrupt { INTERRUPT } else { 0 })
    }

    /// The FIS that comes before `len` bytes of data; `end`: the status after it. SATA §10.3.10
    pub fn pio_setup(&self, from_device: bool, interrupt: bool, end: u8, len: u16) -> [u8; REGISTER] {
        let flags = if from_device { FROM_DEVICE } else { 0 } | if interrupt { INTERRUPT } else { 0 };
        let mut fis = self.fis(PIO_SETUP, flags);
        let [n0, n1] = len.to_le_bytes();
        let [.., e, t0, t1, _, _] = &mut fis;
        (*e, *t0, *t1) = (end, n0, n1);
        fis
    }
}

/// The FIS that tells of queued commands that have ended; `done`: their tags. SATA §10.3.6
pub fn set_device_bits(status: u8, error: u8, done: u32) -> [u8; 8] {
    let [d0, d1, d2, d3] = done.to_le_bytes();
    [SDB, INTERRUPT, status & 0x77, error, d0, d1, d2, d3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_come_and_go_in_fises() {
        let bytes: [u8; 20] = [0x27, 0x80, 0x60, 8, 1, 2, 3, 0x40, 4, 5, 6, 7, 0x48, 9, 0, 0xaa, 0, 0, 0, 0];
        let c = Command::parse(&bytes).unwrap();
        assert_eq!((c.is_command, c.port, c.command, c.features), (true, 0, 0x60, 0x0708));
        assert_eq!((c.lba, c.device, c.count, c.control), (0x0605_0403_0201, 0x40, 0x0948, 0xaa));
        assert_eq!(Command::parse(&[0x34; 20]), None);
        assert_eq!(Command::parse(bytes.get(..12).unwrap()), None);
        let t = TaskFile { status: 0x51, error: 4, lba: 0x0605_0403_0201, device: 0x40, count: 0x0908 };
        assert_eq!(t.d2h(true), [0x34, 0x40, 0x51, 4, 1, 2, 3, 0x40, 4, 5, 6, 0, 8, 9, 0, 0, 0, 0, 0, 0]);
        let fis = t.pio_setup(true, true, 0x50, 512);
        assert_eq!(fis, [0x5f, 0x60, 0x51, 4, 1, 2, 3, 0x40, 4, 5, 6, 0, 8, 9, 0, 0x50, 0, 2, 0, 0]);
        let cd = TaskFile { lba: 0xeb_1401, count: 1, ..TaskFile::default() };
        assert_eq!(cd.signature(), 0xeb14_0101);
    }

    #[test]
    fn headers_and_descriptors() {
        let mut h = [0; HEADER];
        (h[0], h[2], h[3]) = (0x85, 0xff, 0xff);
        h[8..16].copy_from_slice(&0x1_2345_67ffu64.to_le_bytes());
        assert_eq!(Header::parse(&h), Header { fis_len: 20, prds: 0xffff, table: 0x1_2345_6780 });
        let mut d = [0; PRD as usize];
        d[..8].copy_from_slice(&0x5001u64.to_le_bytes());
        d[12..].copy_from_slice(&(1u32 << 31 | 510).to_le_bytes());
        assert_eq!(Prd::parse(&d), Prd { addr: 0x5000, len: 512, interrupt: true });
        d[12..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Prd::parse(&d).len, 4 << 20);
    }
}
