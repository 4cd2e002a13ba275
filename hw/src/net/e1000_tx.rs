//! Transmission of the 8254x: from descriptors to frames. Source: Intel 317453, §3.3 (descriptors), §3.5 (segmentation).

use super::e1000_regs::{E1000Regs, TxContext, TxFrame, ctrl, stat};
use net::checksum::{insert, put_word, word};
use net::offload::{Cut, cut};

/// Most bytes that one packet's descriptors may give.
pub const MAX: usize = 0xffff + 255;

/// Descriptor words 2 and 3, §3.3.3 to §3.3.7.
const EOP: u32 = 1 << 24;
const IC: u32 = 1 << 26;
const TSE: u32 = 1 << 26;
const RS: u32 = 1 << 27;
const RPS: u32 = 1 << 28;
const DEXT: u32 = 1 << 29;
const VLE: u32 = 1 << 30;
const IDE: u32 = 1 << 31;
const IXSM: u32 = 1 << 8;
const TXSM: u32 = 2 << 8;
/// Written back.
pub const DD: u32 = 1;

/// Transmit control: pad short packets.
const PSP: u32 = 1 << 3;

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

    /// Bytes to fetch: address and length.
    pub fn buffer(&self) -> Option<(u64, usize)> {
        let [low, high, cmd, _] = self.0;
        let len = match self.kind() {
            Kind::Context => return None,
            Kind::Legacy => cmd & 0xffff,
            Kind::Data => cmd & 0xf_ffff,
        };
        Some((u64::from(high) << 32 | u64::from(low), len as usize))
    }

    fn kind(&self) -> Kind {
        let [_, _, cmd, _] = self.0;
        match (cmd & DEXT != 0, cmd >> 20 & 15) {
            (false, _) => Kind::Legacy,
            (true, 0) => Kind::Context,
            (true, _) => Kind::Data,
        }
    }

    /// What is written back over the fourth word, if anything.
    pub fn status(&self) -> Option<u32> {
        let [_, _, cmd, upper] = self.0;
        (cmd & (RS | RPS) != 0).then_some(upper | DD)
    }

    /// Its interrupt may wait.
    pub fn may_wait(&self) -> bool {
        let [_, _, cmd, _] = self.0;
        cmd & IDE != 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Legacy,
    Context,
    Data,
}

impl E1000Regs {
    /// Takes a descriptor with its bytes; the frames that it completes.
    pub fn take_descriptor(&mut self, d: Descriptor, bytes: &[u8]) -> Vec<Vec<u8>> {
        let [w0, w1, cmd, upper] = d.0;
        let kind = d.kind();
        if kind == Kind::Context {
            let context = TxContext {
                ipcss: w0 as u8,
                ipcso: (w0 >> 8) as u8,
                ipcse: (w0 >> 16) as u16,
                tucss: w1 as u8,
                tucso: (w1 >> 8) as u8,
                tucse: (w1 >> 16) as u16,
                paylen: cmd & 0xf_ffff,
                hdrlen: (upper >> 8) as u8,
                mss: (upper >> 16) as u16,
                tcp: cmd >> 24 & 1 != 0,
                ip: cmd >> 25 & 1 != 0,
            };
            // Segmentation has a context of its own.
            let [segmentation, plain] = &mut self.contexts;
            *(if cmd & TSE != 0 { segmentation } else { plain }) = context;
            return vec![];
        }
        if self.frame.data.is_empty() && kind == Kind::Data {
            // POPTS and TSE count in a packet's first descriptor.
            self.frame.sums = (upper & IXSM != 0, upper & TXSM != 0);
            self.frame.tse = cmd & TSE != 0;
        }
        if self.frame.data.len() + bytes.len() <= MAX {
            self.frame.data.extend_from_slice(bytes);
        } else {
            self.frame.too_long = true;
        }
        if cmd & EOP == 0 {
            return vec![];
        }
        let mut frame = std::mem::take(&mut self.frame);
        if frame.too_long || frame.data.is_empty() {
            return vec![];
        }
        let tag = (cmd & VLE != 0 && self.ctrl & ctrl::VME != 0).then_some((upper >> 16) as u16);
        let frames = match kind {
            Kind::Legacy => {
                if cmd & IC != 0 {
                    insert(&mut frame.data, (cmd >> 16 & 0xff) as usize, (upper >> 8 & 0xff) as usize, 0);
                }
                vec![frame.data]
            }
            _ => self.offload(frame),
        };
        frames.into_iter().map(|f| self.finish(f, tag)).collect()
    }

    /// Checksums and segmentation.
    fn offload(&mut self, frame: TxFrame) -> Vec<Vec<u8>> {
        let [segmentation, plain] = self.contexts;
        let (ip, upper) = frame.sums;
        let sums = |c: &TxContext, data: &mut [u8]| {
            if upper {
                insert(data, c.tucso.into(), c.tucss.into(), c.tucse.into());
            }
            if ip {
                insert(data, c.ipcso.into(), c.ipcss.into(), c.ipcse.into());
            }
        };
        if !frame.tse {
            let mut data = frame.data;
            sums(&plain, &mut data);
            return vec![data];
        }
        let c = segmentation;
        if c.mss == 0 || frame.data.len() <= c.hdrlen.into() {
            return vec![];
        }
        let (ip, upper_at) = (usize::from(c.ipcss), usize::from(c.tucss));
        let how = Cut { ip, v4: c.ip, upper: upper_at, tcp: c.tcp, header: c.hdrlen.into(), size: c.mss.into() };
        let whole = cut(&frame.data, how).map(|mut f| {
            if upper {
                // Software gave the pseudo-header's sum without the length.
                let upper_len = f.len().saturating_sub(upper_at) as u16;
                let seed = u32::from(word(&f, c.tucso.into()).unwrap_or(0)) + u32::from(upper_len);
                put_word(&mut f, c.tucso.into(), ((seed >> 16) + (seed & 0xffff)) as u16);
            }
            sums(&c, &mut f);
            f
        });
        let frames = whole.collect();
        self.count(stat::TSCTC, 1);
        frames
    }

    /// Tag, padding, statistics.
    fn finish(&mut self, mut frame: Vec<u8>, tag: Option<u16>) -> Vec<u8> {
        if let Some(tag) = tag.filter(|_| frame.len() >= 12) {
            let [v0, v1] = (self.vet as u16).to_be_bytes();
            let [t0, t1] = tag.to_be_bytes();
            frame.splice(12..12, [v0, v1, t0, t1]);
        }
        if self.tctl & PSP != 0 && frame.len() < 60 {
            frame.resize(60, 0);
        }
        let size = frame.len() + 4;
        self.count_size(stat::PTC64, size);
        self.count(stat::TPT, 1);
        self.count_long(stat::TOTL, size as u64);
        self.count(stat::GPTC, 1);
        self.count_long(stat::GOTCL, size as u64);
        match frame.get(..6) {
            Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => self.count(stat::BPTC, 1),
            Some([first, ..]) if first & 1 != 0 => self.count(stat::MPTC, 1),
            _ => {}
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::super::e1000_regs::Info;
    use super::*;
    use net::checksum::check;

    fn new() -> E1000Regs {
        E1000Regs::power_on(&Info::default(), true)
    }

    fn tcp_frame(payload: usize) -> Vec<u8> {
        let mut f = vec![2; 12];
        f.extend([8, 0, 0x45, 0, 0, 0, 0, 7, 0, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
        f.extend([0, 80, 0, 81, 0, 0, 0, 100, 0, 0, 0, 0, 0x50, 0x19, 1, 0, 0, 0, 0, 0]);
        // Pseudo-header without length: addresses and protocol.
        put_word(&mut f, 50, 0x0a00 + 0x020f + 0x0a00 + 0x0202 + 6);
        f.extend((0..payload).map(|n| n as u8));
        f
    }

    fn context(tse: bool, mss: u32) -> Descriptor {
        let cmd = DEXT | 1 << 24 | 1 << 25 | if tse { TSE } else { 0 };
        Descriptor([14 | 24 << 8 | 33 << 16, 34 | 50 << 8, cmd, 54 << 8 | mss << 16])
    }

    #[test]
    fn long_packets_are_cut_with_right_headers() {
        let mut r = new();
        assert!(r.take_descriptor(context(true, 1000), &[]).is_empty());
        let whole = tcp_frame(2500);
        let data = DEXT | 1 << 20 | TSE;
        assert!(r.take_descriptor(Descriptor([0, 0, data | 54, IXSM | TXSM]), &whole[..54]).is_empty());
        let frames = r.take_descriptor(Descriptor([0, 0, data | EOP, 0]), &whole[54..]);
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [1054, 1054, 554]);
        for (n, f) in frames.iter().enumerate() {
            let c = check(f);
            assert_eq!((c.ip, c.upper), (Some(true), Some(true)), "segment {n}");
            assert_eq!(word(f, 18), Some(7 + n as u16));
            assert_eq!(f[38..42], (100 + n as u32 * 1000).to_be_bytes());
            assert_eq!(f[47] & 9, if n == 2 { 9 } else { 0 });
        }
        assert_eq!((r.read(0x40f8), r.read(0x40d4)), (1, 3));
    }

    #[test]
    fn checksums_alone_use_the_other_context() {
        let mut r = new();
        _ = r.take_descriptor(context(false, 0), &[]);
        let mut whole = tcp_frame(10);
        put_word(&mut whole, 16, 50);
        // Without segmentation the length is in the sum.
        let seed = word(&whole, 50).unwrap() + 30;
        put_word(&mut whole, 50, seed);
        let frames = r.take_descriptor(Descriptor([0, 0, DEXT | 1 << 20 | EOP, IXSM | TXSM]), &whole);
        let c = check(&frames[0]);
        assert_eq!((frames.len(), c.ip, c.upper), (1, Some(true), Some(true)));
    }

    #[test]
    fn tags_and_padding_are_added() {
        let mut r = new();
        (r.ctrl, r.vet, r.tctl) = (ctrl::VME, 0x8100, PSP);
        let frames = r.take_descriptor(Descriptor([0, 0, EOP | VLE, 0x0123 << 16]), &[9; 20]);
        assert_eq!((frames[0].len(), &frames[0][12..16]), (60, &[0x81, 0, 1, 0x23][..]));
    }

    #[test]
    fn endless_packets_are_dropped() {
        let mut r = new();
        for _ in 0..40 {
            assert!(r.take_descriptor(Descriptor([0, 0, 0, 0]), &[0; 10000]).is_empty());
        }
        assert!(r.frame.data.len() <= MAX);
        assert!(r.take_descriptor(Descriptor([0, 0, EOP, 0]), &[1]).is_empty());
        assert_eq!(r.take_descriptor(Descriptor([0, 0, EOP, 0]), &[1; 64]).len(), 1);
    }
}
