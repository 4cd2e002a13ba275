//! Internet checksums in frames, for cards that make and check them. Sources: RFC 1071, 791, 8200, 9293, 768.

/// One's complement sum, not complemented.
pub fn sum(bytes: &[u8]) -> u32 {
    let mut total: u64 = 0;
    let mut words = bytes.chunks_exact(2);
    for w in &mut words {
        if let [a, b] = w {
            total += u64::from(u16::from_be_bytes([*a, *b]));
        }
    }
    if let [last] = words.remainder() {
        total += u64::from(*last) << 8;
    }
    fold(total)
}

fn fold(mut total: u64) -> u32 {
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    total as u32
}

/// Two bytes at `at`.
pub fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

/// Writes two bytes at `at`, if they are there.
pub fn put_word(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(to) = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut::<2>()) {
        *to = value.to_be_bytes();
    }
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
        for n in 0..f.len() {
            let _ = check(&f[..n]);
        }
    }
}
