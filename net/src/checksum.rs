//! Internet checksums and the words they are in, for cards that make and check them and for the user-mode network.
//! Sources: RFC 1071, 791, 8200, 9293, 768.

/// One's complement sum, not complemented.
pub fn sum(bytes: &[u8]) -> u32 {
    let mut total: u64 = 0;
    let mut longs = bytes.chunks_exact(4);
    for l in &mut longs {
        // (Carries into the upper half come back when the total is folded.)
        total += l.first_chunk::<4>().map_or(0, |b| u64::from(u32::from_be_bytes(*b)));
    }
    let mut words = longs.remainder().chunks_exact(2);
    for w in &mut words {
        total += w.first_chunk::<2>().map_or(0, |b| u64::from(u16::from_be_bytes(*b)));
    }
    if let [last] = words.remainder() {
        total += u64::from(*last) << 8;
    }
    fold(total)
}

/// A sum as 16 bits.
pub fn fold(mut total: u64) -> u32 {
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u32
}

/// Two bytes at `at`.
pub fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

/// Four bytes at `at`.
pub fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// Writes two bytes at `at`, if they are there.
pub fn put_word(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(to) = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut::<2>()) {
        *to = value.to_be_bytes();
    }
}

/// Writes four bytes at `at`, if they are there.
pub fn put_long(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(to) = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut::<4>()) {
        *to = value.to_be_bytes();
    }
}

/// The frame check sequence of Ethernet, IEEE 802.3 §3.2.9, as the number whose low byte is sent first.
pub fn crc32(bytes: &[u8]) -> u32 {
    #[expect(clippy::indexing_slicing, reason = "evaluated when this is built")]
    static TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut n = 0;
        while n < 256 {
            let (mut c, mut bit) = (n as u32, 0);
            while bit < 8 {
                c = if c & 1 != 0 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 };
                bit += 1;
            }
            table[n] = c;
            n += 1;
        }
        table
    };
    let step = |c: u32, b: &u8| TABLE.get(((c ^ u32::from(*b)) & 0xff) as usize).map_or(0, |t| t ^ c >> 8);
    !bytes.iter().fold(u32::MAX, step)
}

/// Which of the 64 bits of a card's filter of groups an address meets: the upper bits of its check sequence, not complemented, in the
/// order they are sent.
pub fn group_hash(mac: [u8; 6]) -> u32 {
    (!crc32(&mac)).reverse_bits() >> 26
}

/// Fills in a checksum as cards do: of `start` to `end` (inclusive; 0: all), which contains what the field at `at` was given.
pub fn insert(frame: &mut [u8], at: usize, start: usize, end: usize) {
    let end = if end == 0 { frame.len() } else { frame.len().min(end + 1) };
    if let Some(covered) = frame.get(start..end) {
        let value = !(sum(covered) as u16);
        put_word(frame, at, value);
    }
}

/// What was found about a received frame: `None` where there is nothing to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Whether the IPv4 header's checksum is right.
    pub ip: Option<bool>,
    /// Whether TCP's or UDP's is.
    pub upper: Option<bool>,
    /// The upper layer is UDP.
    pub udp: bool,
}

/// Checks an Ethernet frame without VLAN tag.
pub fn check(frame: &[u8]) -> Checked {
    let none = Checked::default();
    let (Some(kind), Some(packet)) = (word(frame, 12), frame.get(14..)) else { return none };
    let found = match kind {
        0x0800 => check_v4(packet),
        0x86dd => check_v6(packet),
        _ => None,
    };
    found.unwrap_or(none)
}

fn upper(pseudo: u32, proto: u8, data: &[u8]) -> Checked {
    let udp = proto == 17;
    let upper = match proto {
        // A UDP checksum of zero says that there is none.
        17 if word(data, 6) == Some(0) => None,
        6 | 17 => Some(fold(u64::from(pseudo) + u64::from(sum(data)) + u64::from(proto) + data.len() as u64) == 0xffff),
        _ => None,
    };
    Checked { ip: None, upper, udp }
}

fn check_v4(packet: &[u8]) -> Option<Checked> {
    let header = usize::from(packet.first()? & 15) * 4;
    let head = packet.get(..header).filter(|h| h.len() >= 20)?;
    let ip = Some(sum(head) == 0xffff);
    let fragment = word(packet, 6)? & 0x3fff != 0;
    let data = packet.get(header..usize::from(word(packet, 2)?));
    match data {
        Some(data) if !fragment => Some(Checked { ip, ..upper(sum(head.get(12..20)?), *packet.get(9)?, data) }),
        _ => Some(Checked { ip, ..Checked::default() }),
    }
}

fn check_v6(packet: &[u8]) -> Option<Checked> {
    let data = packet.get(40..40 + usize::from(word(packet, 4)?))?;
    Some(upper(sum(packet.get(8..40)?), *packet.get(6)?, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_frame() -> Vec<u8> {
        let mut f = vec![0; 12];
        f.extend([8, 0, 0x45, 0, 0, 31, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
        f.extend([0, 100, 0, 53, 0, 11, 0, 0, 1, 2, 3]);
        insert(&mut f, 24, 14, 33);
        // The field starts as the pseudo-header's sum.
        let pseudo = sum(&f[26..34]) + 17 + 11;
        put_word(&mut f, 40, fold(pseudo.into()) as u16);
        insert(&mut f, 40, 34, 0);
        f
    }

    #[test]
    fn what_is_inserted_is_right() {
        let mut f = udp_frame();
        assert_eq!(check(&f), Checked { ip: Some(true), upper: Some(true), udp: true });
        f[44] ^= 1;
        assert_eq!(check(&f), Checked { ip: Some(true), upper: Some(false), udp: true });
        f[20] = 0x20;
        assert_eq!(check(&f), Checked { ip: Some(false), upper: None, udp: false });
        // However a frame is cut off: what cannot be whole is not called right.
        for n in 0..34 {
            assert_eq!(check(&f[..n]).upper, None, "{n}");
        }
    }

    #[test]
    fn check_sequences_are_those_of_the_standard() {
        assert_eq!((crc32(b"123456789"), crc32(&[])), (0xcbf4_3926, 0));
        // 01:00:5e:00:00:01 sets bit 31 of 64 in every driver's table.
        assert_eq!(group_hash([1, 0, 0x5e, 0, 0, 1]), 31);
    }

    #[test]
    fn sums_do_not_depend_on_how_words_are_taken() {
        let bytes: Vec<u8> = (0..1000u32).map(|n| (n * 77 + n / 3) as u8).collect();
        for (from, to) in [(0, 1000), (1, 998), (2, 3), (5, 5), (0, 999), (3, 1000)] {
            let slow = bytes[from..to]
                .chunks(2)
                .fold(0u64, |t, w| t + u64::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)])));
            assert_eq!(sum(&bytes[from..to]), fold(slow), "{from}..{to}");
        }
        assert_eq!((sum(&[0xff; 64]), sum(&[])), (0xffff, 0));
    }
}
