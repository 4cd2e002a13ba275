//! Transmission of the RTL8139C+: from descriptors of C+ mode to frames. Source: RTL8139C(L)+ datasheet rev. 1.6, §9.2 (command and status
//! descriptors), §9.3 (large send).

use super::rtl8139_regs::{Rtl8139Regs, cr};
use net::Frame;
use net::offload::{Cut, cut, headers, sign};

/// Most bytes of a packet.
pub const MAX: usize = 0x1_1000;

/// First word of a descriptor.
const OWN: u32 = 1 << 31;
const EOR: u32 = 1 << 30;
const FS: u32 = 1 << 29;
const LS: u32 = 1 << 28;
const LGSEN: u32 = 1 << 27;
const IPCS: u32 = 1 << 18;
const UDPCS: u32 = 1 << 17;
const TCPCS: u32 = 1 << 16;
/// Errors and collisions, which a frame that was sent has none of.
const STATUS: u32 = 0x03ff_0000;
/// Second word: a tag is put in.
const TAGC: u32 = 1 << 17;
/// Bytes of a frame without checksum, at least.
const SHORTEST: usize = 60;

/// A descriptor, as four words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub [u32; 4]);

impl Descriptor {
    /// From its bytes in memory.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let mut words = [0; 4];
        for (w, b) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *w = b.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b));
        }
        Self(words)
    }

    /// Whether it is the card's.
    pub fn is_owned(&self) -> bool {
        self.0[0] & OWN != 0
    }

    /// The ring ends with it.
    pub fn is_last(&self) -> bool {
        self.0[0] & EOR != 0
    }

    /// Address of its buffer.
    pub fn buffer(&self) -> u64 {
        u64::from(self.0[3]) << 32 | u64::from(self.0[2])
    }

    /// Bytes to be sent.
    pub fn len(&self) -> usize {
        (self.0[0] & 0xffff) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of a buffer to be received into.
    pub fn room(&self) -> usize {
        (self.0[0] & 0x1fff) as usize
    }

    /// Its first word when it is the driver's again.
    pub fn sent(&self) -> u32 {
        let status = if self.0[0] & LS != 0 && self.0[0] & LGSEN == 0 { STATUS } else { 0 };
        self.0[0] & !(OWN | status)
    }
}

impl Rtl8139Regs {
    /// Takes a descriptor with its bytes; the frames that it completes.
    pub fn take_descriptor(&mut self, d: Descriptor, bytes: &[u8]) -> Vec<Frame> {
        let [cmd, vlan, ..] = d.0;
        if cmd & FS != 0 {
            self.packet.clear();
            self.too_long = false;
        }
        if self.packet.len() + bytes.len() <= MAX {
            self.packet.extend_from_slice(bytes);
        } else {
            self.too_long = true;
        }
        if cmd & LS == 0 {
            return vec![];
        }
        let packet = std::mem::take(&mut self.packet);
        if std::mem::take(&mut self.too_long) || packet.is_empty() {
            return vec![];
        }
        let mut frames = match (headers(&packet), cmd & LGSEN != 0) {
            (Some(h), true) if h.v4 && h.proto == 6 => {
                let data_at = packet.get(h.upper + 12).map_or(0, |b| usize::from(b >> 4) * 4);
                let size = (cmd >> 16 & 0x7ff) as usize;
                let how = Cut { ip: h.ip, v4: true, upper: h.upper, tcp: true, header: h.upper + data_at, size };
                let whole = cut(&packet, how).map(|mut f| {
                    sign(&mut f, h, true, true);
                    f
                });
                whole.collect()
            }
            (Some(h), false) => {
                let mut packet = packet;
                let upper = cmd & UDPCS != 0 && h.proto == 17 || cmd & TCPCS != 0 && h.proto == 6;
                sign(&mut packet, h, cmd & IPCS != 0, upper);
                vec![packet]
            }
            _ => vec![packet],
        };
        for frame in &mut frames {
            if vlan & TAGC != 0 && frame.len() >= 12 {
                // (The tag is in the network's order already.)
                let [t0, t1] = (vlan as u16).to_le_bytes();
                frame.splice(12..12, [0x81, 0, t0, t1]);
            }
            self.finish(frame);
        }
        frames
    }

    /// Padding, statistics.
    pub fn finish(&mut self, frame: &mut Frame) {
        if frame.len() < SHORTEST {
            frame.resize(SHORTEST, 0);
        }
        self.tally.tx_ok = self.tally.tx_ok.wrapping_add(1);
    }

    /// Whether the transmitter is on.
    pub fn transmits(&self) -> bool {
        self.cr & cr::TE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::checksum::{check, put_word, word};

    fn tcp(payload: usize) -> Frame {
        let mut f = vec![2; 12];
        f.extend([8, 0, 0x45, 0]);
        f.extend((40 + payload as u16).to_be_bytes());
        f.extend([0, 7, 0, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
        f.extend([0, 80, 0, 81, 0, 0, 0, 100, 0, 0, 0, 0, 0x50, 0x19, 1, 0, 0, 0, 0, 0]);
        f.extend((0..payload).map(|n| n as u8));
        f
    }

    fn new() -> Rtl8139Regs {
        Rtl8139Regs::power_on([2; 6], true)
    }

    #[test]
    fn checksums_are_filled_in_where_they_are_asked_for() {
        for (bits, ip, upper) in [
            (0, false, false),
            (IPCS, true, false),
            (TCPCS, false, true),
            (IPCS | TCPCS, true, true),
            (UDPCS, false, false),
        ] {
            let f = new().take_descriptor(Descriptor([FS | LS | bits, 0, 0, 0]), &tcp(10)).remove(0);
            let found = check(&f);
            assert_eq!((found.ip, found.upper), (Some(ip), Some(upper)), "{bits:#x}");
        }
        let mut short = tcp(3);
        put_word(&mut short, 16, 43);
        let f = new().take_descriptor(Descriptor([FS | LS | IPCS | TCPCS, 0, 0, 0]), &short).remove(0);
        assert_eq!((f.len(), check(&f).upper), (60, Some(true)));
    }

    #[test]
    fn large_packets_of_many_descriptors_are_cut() {
        let (mut r, whole) = (new(), tcp(2500));
        let large = LGSEN | 1000 << 16;
        assert!(r.take_descriptor(Descriptor([FS | large, 0, 0, 0]), &whole[..100]).is_empty());
        assert!(r.take_descriptor(Descriptor([large, 0, 0, 0]), &whole[100..2000]).is_empty());
        let frames = r.take_descriptor(Descriptor([LS | large, TAGC | 0x0500, 0, 0]), &whole[2000..]);
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [1058, 1058, 558]);
        for f in frames {
            assert_eq!((word(&f, 12), word(&f, 14)), (Some(0x8100), Some(5)));
            let plain = [&f[..12], &f[16..]].concat();
            assert_eq!((check(&plain).ip, check(&plain).upper), (Some(true), Some(true)));
        }
        assert_eq!(r.tally.tx_ok, 3);
    }

    #[test]
    fn endless_packets_are_dropped() {
        let mut r = new();
        _ = r.take_descriptor(Descriptor([FS, 0, 0, 0]), &[0; 60_000]);
        _ = r.take_descriptor(Descriptor([0, 0, 0, 0]), &[0; 60_000]);
        assert!(r.packet.len() <= MAX);
        assert!(r.take_descriptor(Descriptor([LS, 0, 0, 0]), &[1; 64]).is_empty());
        assert_eq!(r.take_descriptor(Descriptor([FS | LS, 0, 0, 0]), &[1; 64]), [[1; 64]]);
        // Large send of what is no TCP packet: as it is; without a size: nothing.
        assert_eq!(r.take_descriptor(Descriptor([FS | LS | LGSEN | 8 << 16, 0, 0, 0]), &[1; 64]), [[1; 64]]);
        assert!(r.take_descriptor(Descriptor([FS | LS | LGSEN, 0, 0, 0]), &tcp(100)).is_empty());
    }
}
