//! Kernels in SSE2 intrinsics: packed integers, and packed doubles with comparisons.
#![expect(unsafe_code, reason = "vector loads and stores; intrinsics")]

use crate::digest::{Digest, Random};
use std::arch::x86_64::*;

fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: sixteen readable bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

fn store(bytes: &mut [u8; 16], value: __m128i) {
    // SAFETY: sixteen writable bytes; the store needs no alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), value) }
}

/// Whole vectors of a buffer.
fn vectors(bytes: &[u8]) -> &[[u8; 16]] {
    bytes.as_chunks().0
}

/// Motion search: sums of absolute differences of a 16×16 block at every place of a 64×64 window.
pub fn sad(n: u64) -> u64 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { sad_sse2(n) }
}

#[target_feature(enable = "sse2")]
fn sad_sse2(n: u64) -> u64 {
    const WIDTH: usize = 80;
    let mut random = Random::new(20);
    let (window, block) = (random.bytes(WIDTH * 80), random.bytes(256));
    let mut sum = 0u64;
    for round in 0..n {
        let mut best = (u64::MAX, 0);
        for at in 0..64 * 64 {
            let from = &window[at / 64 * WIDTH + at % 64..];
            let mut total = _mm_setzero_si128();
            for (row, b) in from.chunks(WIDTH).zip(vectors(&block)) {
                let a = load(row.first_chunk().expect("rows are wider"));
                total = _mm_add_epi64(total, _mm_sad_epu8(a, load(b)));
            }
            let total = _mm_add_epi64(total, _mm_unpackhi_epi64(total, total));
            best = best.min((_mm_cvtsi128_si64(total) as u64 ^ (round & 1), at));
        }
        sum = sum.wrapping_mul(31).wrapping_add(best.0 * 4096 + best.1 as u64);
    }
    sum
}

/// Mixing of two streams with saturation, minima, maxima and packing.
pub fn saturate(n: u64) -> u64 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { saturate_sse2(n) }
}

#[target_feature(enable = "sse2")]
fn saturate_sse2(n: u64) -> u64 {
    let mut random = Random::new(21);
    let (mut a, b) = (random.bytes(16_384), random.bytes(16_384));
    let gain = _mm_set1_epi16(0x6123);
    for _ in 0..n * 20 {
        for (x, y) in a.as_chunks_mut().0.iter_mut().zip(vectors(&b)) {
            let (p, q) = (load(x), load(y));
            let words = _mm_mulhi_epi16(_mm_adds_epi16(p, q), gain);
            let bytes = _mm_subs_epu8(_mm_adds_epu8(p, q), _mm_min_epu8(p, q));
            let packed = _mm_packus_epi16(words, _mm_max_epi16(p, q));
            store(x, _mm_xor_si128(_mm_avg_epu8(bytes, packed), _mm_subs_epi16(words, q)));
        }
    }
    Digest::new().bytes(&a).end()
}

/// Transposes of 8×8 blocks of words, with multiply-add and shifts between.
pub fn shuffle(n: u64) -> u64 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { shuffle_sse2(n) }
}

#[target_feature(enable = "sse2")]
fn shuffle_sse2(n: u64) -> u64 {
    let mut random = Random::new(22);
    let mut blocks = random.bytes(128 * 64);
    let weights = _mm_set_epi16(3, -5, 7, 11, -13, 17, 19, 23);
    for _ in 0..n * 20 {
        for block in blocks.as_chunks_mut::<16>().0.as_chunks_mut::<8>().0 {
            let r = [0, 1, 2, 3, 4, 5, 6, 7].map(|i: usize| load(&block[i]));
            let w =
                [0, 1, 2, 3].map(|i: usize| [_mm_unpacklo_epi16(r[i], r[i + 4]), _mm_unpackhi_epi16(r[i], r[i + 4])]);
            let w: [__m128i; 8] = [w[0][0], w[0][1], w[1][0], w[1][1], w[2][0], w[2][1], w[3][0], w[3][1]];
            for (i, out) in block.iter_mut().enumerate() {
                let x = _mm_unpacklo_epi32(w[i], w[i ^ 4]);
                let y = _mm_shufflehi_epi16::<0b00_11_10_01>(_mm_shufflelo_epi16::<0b10_01_11_00>(w[i]));
                let sum = _mm_madd_epi16(_mm_shuffle_epi32::<0b01_00_11_10>(x), weights);
                let bits = _mm_or_si128(_mm_slli_epi32::<3>(sum), _mm_srli_epi32::<29>(sum));
                store(out, _mm_add_epi32(_mm_sub_epi16(bits, y), _mm_unpackhi_epi64(x, y)));
            }
        }
    }
    Digest::new().bytes(&blocks).end()
}

/// The Mandelbrot set, 64×64 points, two at a time.
pub fn mandelbrot(n: u64) -> u64 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { mandelbrot_sse2(n) }
}

#[target_feature(enable = "sse2")]
fn mandelbrot_sse2(n: u64) -> u64 {
    const SIZE: usize = 64;
    const LIMIT: usize = 100;
    let mut d = Digest::new();
    let step = 3.0 / SIZE as f64;
    for round in 0..n {
        let shift = round as f64 * 1e-3;
        for y in 0..SIZE {
            let cy = _mm_set1_pd(y as f64 * step - 1.5);
            for x in (0..SIZE).step_by(2) {
                let cx = _mm_set_pd((x + 1) as f64 * step - 2.0 + shift, x as f64 * step - 2.0 + shift);
                let (mut zx, mut zy, mut count) = (_mm_setzero_pd(), _mm_setzero_pd(), _mm_setzero_si128());
                for _ in 0..LIMIT {
                    let (xx, yy) = (_mm_mul_pd(zx, zx), _mm_mul_pd(zy, zy));
                    let inside = _mm_cmple_pd(_mm_add_pd(xx, yy), _mm_set1_pd(4.0));
                    if _mm_movemask_pd(inside) == 0 {
                        break;
                    }
                    count = _mm_sub_epi64(count, _mm_castpd_si128(inside));
                    let xy = _mm_mul_pd(zx, zy);
                    zx = _mm_add_pd(_mm_sub_pd(xx, yy), cx);
                    zy = _mm_add_pd(_mm_add_pd(xy, xy), cy);
                }
                let both = _mm_cvtsi128_si64(count) + (_mm_cvtsi128_si64(_mm_unpackhi_epi64(count, count)) << 32);
                d.word(both as u64);
            }
        }
    }
    d.end()
}
