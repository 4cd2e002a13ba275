//! Division of a double-width dividend.

use super::super::ops::W;

/// Quotient and remainder of `hi:lo / by`, unsigned; nothing on zero or overflow.
#[inline(always)]
pub fn unsigned(w: W, hi: u64, lo: u64, by: u64) -> Option<[u64; 2]> {
    if by == 0 || hi >= by {
        return None;
    }
    if w == W::B8 && hi != 0 {
        let n = (hi as u128) << 64 | lo as u128;
        return Some([(n / by as u128) as u64, (n % by as u128) as u64]);
    }
    let n = if w == W::B8 { lo } else { hi << w.bits() | lo };
    Some([n / by, n % by])
}

/// Quotient and remainder of `hi:lo / by`, signed, towards zero; nothing on zero or overflow.
#[inline(always)]
pub fn signed(w: W, hi: u64, lo: u64, by: u64) -> Option<[u64; 2]> {
    let d = w.signed(by);
    let (q, r) = if w == W::B8 {
        let n = ((hi as u128) << 64 | lo as u128) as i128;
        match i64::try_from(n) {
            Ok(n) => (n.checked_div(d)? as i128, n.checked_rem(d)?),
            Err(_) => (n.checked_div(d as i128)?, n.checked_rem(d as i128)? as i64),
        }
    } else {
        let n = (w.signed(hi) << w.bits()) | lo as i64;
        (n.checked_div(d)? as i128, n.checked_rem(d)?)
    };
    let low = q as u64 & w.mask();
    (w.signed(low) as i128 == q).then_some([low, r as u64 & w.mask()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_fit_or_fault() {
        assert_eq!(unsigned(W::B1, 1, 0, 2), Some([128, 0]));
        assert_eq!(unsigned(W::B1, 2, 0, 2), None);
        assert_eq!(unsigned(W::B8, 1, 0, 2), Some([1 << 63, 0]));
        assert_eq!(unsigned(W::B4, 0, 7, 0), None);
        assert_eq!(signed(W::B1, 0xff, 0x80, 1), Some([0x80, 0]));
        assert_eq!(signed(W::B1, 0, 0x80, 1), None);
        assert_eq!(signed(W::B2, 0xffff, 0xfff9, 2), Some([0xfffd, 0xffff]));
        assert_eq!(signed(W::B8, u64::MAX, 1 << 63, u64::MAX), None);
        assert_eq!(signed(W::B4, 0x8000_0000, 0, 0xffff_ffff), None);
    }
}
