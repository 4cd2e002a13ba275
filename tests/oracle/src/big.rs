//! Floating-point numbers of 384 bits: enough to be the truth for an 80-bit function after any argument reduction.
//! Results are truncated; a few last bits are wrong, some 300 more than needed are right.

use std::{cmp::Ordering, sync::OnceLock};

const N: usize = 6;
const BITS: i64 = 64 * N as i64;
/// Series stop when a term is this many bits below the sum.
const ENOUGH: i64 = 330;

/// `±0.m × 2^exp`, `m` with its top bit set, most significant word first; zero has no bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Big {
    negative: bool,
    exp: i64,
    m: [u64; N],
}

impl Big {
    /// Zero.
    pub const ZERO: Big = Big { negative: false, exp: 0, m: [0; N] };

    /// A whole number.
    pub fn int(v: i64) -> Big {
        Big::scaled(v < 0, v.unsigned_abs(), 0)
    }
    /// `±m × 2^exp`.
    pub fn scaled(negative: bool, m: u64, exp: i64) -> Big {
        if m == 0 {
            return Big::ZERO;
        }
        let shift = m.leading_zeros();
        let mut words = [0; N];
        words[0] = m << shift;
        Big { negative, exp: exp + 64 - i64::from(shift), m: words }
    }
    /// A finite double extended (SDM vol. 1 §4.2.2), exactly.
    pub fn f80(v: u128) -> Big {
        let e = ((v >> 64) & 0x7fff) as i64;
        Big::scaled(v >> 79 & 1 != 0, v as u64, e.max(1) - 16383 - 63)
    }
    /// Is it zero?
    pub fn is_zero(&self) -> bool {
        self.m[0] == 0
    }
    /// Is it below zero?
    pub fn is_negative(&self) -> bool {
        self.negative
    }
    /// `e` with `2^(e-1) <= |self| < 2^e`.
    pub fn exponent(&self) -> i64 {
        self.exp
    }
    /// Without its sign.
    pub fn abs(self) -> Big {
        Big { negative: false, ..self }
    }
    /// `-self`.
    pub fn negated(self) -> Big {
        Big { negative: !self.negative && !self.is_zero(), ..self }
    }
    /// `self × 2^n`.
    pub fn shift(self, n: i64) -> Big {
        if self.is_zero() { self } else { Big { exp: self.exp + n, ..self } }
    }
    /// Compares absolute values.
    pub fn cmp_abs(&self, o: &Big) -> Ordering {
        match (self.is_zero(), o.is_zero()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            _ => self.exp.cmp(&o.exp).then(self.m.cmp(&o.m)),
        }
    }
    /// `self + o`.
    pub fn plus(self, o: Big) -> Big {
        let (a, b) = if self.cmp_abs(&o) == Ordering::Less { (o, self) } else { (self, o) };
        let gap = a.exp - b.exp;
        if b.is_zero() || gap >= BITS {
            return a;
        }
        let b_m = shifted_right(b.m, gap as usize);
        if a.negative == b.negative {
            let mut m = [0; N];
            let mut carry = false;
            for n in (0..N).rev() {
                let (x, c1) = a.m[n].overflowing_add(b_m[n]);
                let (x, c2) = x.overflowing_add(u64::from(carry));
                m[n] = x;
                carry = c1 || c2;
            }
            if carry {
                m = shifted_right(m, 1);
                m[0] |= 1 << 63;
                return Big { negative: a.negative, exp: a.exp + 1, m };
            }
            Big { negative: a.negative, exp: a.exp, m }
        } else {
            let mut m = [0; N];
            let mut borrow = false;
            for n in (0..N).rev() {
                let (x, c1) = a.m[n].overflowing_sub(b_m[n]);
                let (x, c2) = x.overflowing_sub(u64::from(borrow));
                m[n] = x;
                borrow = c1 || c2;
            }
            normal(a.negative, a.exp, m)
        }
    }
    /// `self - o`.
    pub fn minus(self, o: Big) -> Big {
        self.plus(o.negated())
    }
    /// `self × o`.
    pub fn times(self, o: Big) -> Big {
        if self.is_zero() || o.is_zero() {
            return Big::ZERO;
        }
        let mut wide = [0_u64; 2 * N];
        for i in (0..N).rev() {
            let mut carry = 0_u128;
            for j in (0..N).rev() {
                let t = u128::from(self.m[i]) * u128::from(o.m[j]) + u128::from(wide[i + j + 1]) + carry;
                wide[i + j + 1] = t as u64;
                carry = t >> 64;
            }
            wide[i] = carry as u64;
        }
        let mut m = [0; N];
        m.copy_from_slice(&wide[..N]);
        if m[0] >> 63 == 0 {
            let next = wide[N] >> 63;
            for n in 0..N {
                m[n] = m[n] << 1 | if n + 1 < N { m[n + 1] >> 63 } else { next };
            }
            return Big { negative: self.negative != o.negative, exp: self.exp + o.exp - 1, m };
        }
        Big { negative: self.negative != o.negative, exp: self.exp + o.exp, m }
    }
    /// `self / d`.
    pub fn div_int(self, d: u64) -> Big {
        let mut rest = 0_u128;
        let mut m = [0; N];
        for (out, word) in m.iter_mut().zip(self.m) {
            let t = rest << 64 | u128::from(word);
            *out = (t / u128::from(d)) as u64;
            rest = t % u128::from(d);
        }
        normal(self.negative, self.exp, m)
    }
    /// `1 / self`, by Newton's iteration from a double.
    pub fn recip(self) -> Big {
        let guess = 1.0 / (self.m[0] as f64 / 18_446_744_073_709_551_616.0); // in (1, 2]
        let mut y = Big::scaled(self.negative, (guess * 4_611_686_018_427_387_904.0) as u64, -62 - self.exp);
        for _ in 0..4 {
            let e = Big::int(1).minus(self.times(y));
            y = y.plus(y.times(e));
        }
        y
    }
    /// `self / o`.
    pub fn over(self, o: Big) -> Big {
        self.times(o.recip())
    }
    /// Rounded down to a whole number, of which the low 64 bits; for `0 <= self < 2^64`.
    pub fn floor(&self) -> u64 {
        match self.exp {
            i64::MIN..=0 => 0,
            e => self.m[0] >> (64 - e.min(64)),
        }
    }
    /// As a double, for messages.
    pub fn to_f64(&self) -> f64 {
        let v = self.m[0] as f64 / 18_446_744_073_709_551_616.0 * 2_f64.powi(self.exp.clamp(-1080, 1030) as i32);
        if self.negative { -v } else { v }
    }
}

fn shifted_right(m: [u64; N], by: usize) -> [u64; N] {
    let (words, bits) = (by / 64, by % 64);
    std::array::from_fn(|n| {
        let at = |k: usize| k.checked_sub(words).map_or(0, |k| m[k]);
        let hi = if n == 0 { 0 } else { at(n - 1) };
        if bits == 0 { at(n) } else { at(n) >> bits | hi << (64 - bits) }
    })
}

fn normal(negative: bool, exp: i64, m: [u64; N]) -> Big {
    let Some(first) = m.iter().position(|&w| w != 0) else { return Big::ZERO };
    let bits = m[first].leading_zeros() as usize;
    let m2 = std::array::from_fn(|n| {
        let at = |k: usize| m.get(k).copied().unwrap_or(0);
        if bits == 0 { at(n + first) } else { at(n + first) << bits | at(n + first + 1) >> (64 - bits) }
    });
    Big { negative, exp: exp - 64 * first as i64 - bits as i64, m: m2 }
}

/// Sum of `term(n)` until it no longer matters.
fn series(mut term: impl FnMut(u64) -> Big) -> Big {
    let mut sum = Big::ZERO;
    for n in 0.. {
        let t = term(n);
        sum = sum.plus(t);
        if t.is_zero() || t.exp < sum.exp - ENOUGH {
            break;
        }
    }
    sum
}

/// `Σ s^n x^(2n+1) / (2n+1)`: the inverse tangent (`s = -1`) or hyperbolic tangent (`s = 1`) near zero.
fn atan_series(x: Big, hyperbolic: bool) -> Big {
    let x2 = if hyperbolic { x.times(x) } else { x.times(x).negated() };
    let mut power = x;
    series(|n| {
        let t = power.div_int(2 * n + 1);
        power = power.times(x2);
        t
    })
}

/// π.
pub fn pi() -> Big {
    static PI: OnceLock<Big> = OnceLock::new();
    // Machin: π/4 = 4 atan 1/5 - atan 1/239
    *PI.get_or_init(|| {
        let a = |d| atan_series(Big::int(1).div_int(d), false);
        a(5).shift(4).minus(a(239).shift(2))
    })
}

/// ln 2.
pub fn ln2() -> Big {
    static LN2: OnceLock<Big> = OnceLock::new();
    *LN2.get_or_init(|| atan_series(Big::int(1).div_int(3), true).shift(1))
}

/// Sine and cosine, for `|x| < 2^63`.
pub fn sin_cos(x: Big) -> (Big, Big) {
    let half_pi = pi().shift(-1);
    let quotient = x.abs().over(half_pi);
    let q = quotient.plus(Big::scaled(false, 1, -1)).floor();
    let r = x.abs().minus(Big::scaled(false, q, 0).times(half_pi));
    let r2 = r.times(r).negated();
    let (mut t, mut u) = (r, Big::int(1));
    let sin = series(|n| {
        if n > 0 {
            t = t.times(r2).div_int(2 * n * (2 * n + 1));
        }
        t
    });
    let cos = series(|n| {
        if n > 0 {
            u = u.times(r2).div_int(2 * n * (2 * n - 1));
        }
        u
    });
    let (s, c) = match q & 3 {
        0 => (sin, cos),
        1 => (cos, sin.negated()),
        2 => (sin.negated(), cos.negated()),
        _ => (cos.negated(), sin),
    };
    (if x.negative { s.negated() } else { s }, c)
}

/// The angle of the point (x, y), in (-π, π]; neither is zero.
pub fn atan2(y: Big, x: Big) -> Big {
    static QUARTER: OnceLock<Big> = OnceLock::new();
    let quarter = *QUARTER.get_or_init(|| atan_series(Big::int(1).shift(-2), false));
    let steep = y.cmp_abs(&x) == Ordering::Greater;
    let mut t = if steep { x.abs().over(y.abs()) } else { y.abs().over(x.abs()) };
    let one = Big::int(1);
    // atan t = π/4 - atan((1-t)/(1+t)), then atan t = atan 1/4 + atan((t-1/4)/(1+t/4))
    let fold = t.cmp_abs(&Big::scaled(false, 424, -10)) == Ordering::Greater;
    if fold {
        t = one.minus(t).over(one.plus(t));
    }
    let step = !t.negative && t.cmp_abs(&Big::scaled(false, 150, -10)) == Ordering::Greater;
    if step {
        t = t.minus(Big::int(1).shift(-2)).over(one.plus(t.shift(-2)));
    }
    let mut a = atan_series(t, false);
    if step {
        a = a.plus(quarter);
    }
    if fold {
        a = pi().shift(-2).minus(a);
    }
    if steep {
        a = pi().shift(-1).minus(a);
    }
    if x.negative {
        a = pi().minus(a);
    }
    if y.negative { a.negated() } else { a }
}

/// `2^x - 1`, for `|x| <= 1`.
pub fn exp2_m1(x: Big) -> Big {
    let y = x.times(ln2());
    let mut t = y;
    series(|n| {
        if n > 0 {
            t = t.times(y).div_int(n + 1);
        }
        t
    })
}

/// Binary logarithm, for `x > 0`.
pub fn log2(x: Big) -> Big {
    // x = m 2^e with m around 1
    let mut e = x.exp;
    let mut m = Big { exp: 0, ..x };
    if m.cmp_abs(&Big::scaled(false, 724, -10)) == Ordering::Less {
        m = m.shift(1);
        e -= 1;
    }
    let one = Big::int(1);
    let ln = atan_series(m.minus(one).over(m.plus(one)), true).shift(1);
    Big::int(e).plus(ln.over(ln2()))
}

/// `log2(1 + x)`, for x around 0.
pub fn log2_p1(x: Big) -> Big {
    atan_series(x.over(Big::int(2).plus(x)), true).shift(1).over(ln2())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: Big, b: Big) {
        let d = a.minus(b);
        assert!(
            d.is_zero() || d.exp < a.exp - 310,
            "{} and {} differ at bit {}",
            a.to_f64(),
            b.to_f64(),
            a.exp - d.exp
        );
    }

    #[test]
    fn constants() {
        // The first 256 bits of π and ln 2 after the binary point, from published tables.
        assert_eq!(pi().m[..2], [0xc90f_daa2_2168_c234, 0xc4c6_628b_80dc_1cd1]);
        assert_eq!(ln2().m[..2], [0xb172_17f7_d1cf_79ab, 0xc9e3_b398_03f2_f6af]);
    }

    #[test]
    fn identities_hold() {
        for n in 1..200_i64 {
            let x = Big::scaled(n % 2 == 0, (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), -64 + n % 60);
            let (s, c) = sin_cos(x);
            near(s.times(s).plus(c.times(c)), Big::int(1));
            if !c.negative {
                near(sin_cos(atan2(s, c)).0, s);
            }
            let small = Big { exp: -(n % 50), ..x };
            near(log2_p1(exp2_m1(small)), small);
            near(log2(x.abs().times(x.abs())), log2(x.abs()).shift(1));
            near(x.over(Big::int(3)).times(Big::int(3)), x);
        }
    }

    #[test]
    fn agrees_with_doubles() {
        for x in [0.1_f64, 0.5, 1.0, 2.5, 100.0, 1e9, -7.25] {
            let bits = x.to_bits();
            let big = Big::scaled(x < 0.0, bits & ((1 << 52) - 1) | 1 << 52, (bits >> 52 & 0x7ff) as i64 - 1075);
            let close = |a: f64, b: f64| assert!((a - b).abs() <= 4e-16 * b.abs(), "{a} {b}");
            close(sin_cos(big).0.to_f64(), x.sin());
            close(sin_cos(big).1.to_f64(), x.cos());
            close(atan2(big, Big::int(1)).to_f64(), x.atan());
            close(atan2(big, Big::int(-3)).to_f64(), x.atan2(-3.0));
            close(log2(big.abs()).to_f64(), x.abs().log2());
            if x.abs() <= 1.0 {
                close(exp2_m1(big).to_f64(), (x * std::f64::consts::LN_2).exp_m1());
            }
        }
    }
}
