//! Floating-point kernels in plain Rust: scalar SSE2, and loops that the compiler makes packed ones.

use crate::digest::{Digest, Random, of_floats};
use std::hint::black_box;

/// A body: position, velocity, mass.
#[derive(Clone, Copy)]
struct Body {
    at: [f64; 3],
    v: [f64; 3],
    mass: f64,
}

/// Five bodies under gravity, 1,000 steps.
pub fn nbody(n: u64) -> u64 {
    let mut random = Random::new(10);
    let mut vector = |scale: f64| [(); 3].map(|()| random.float() * scale);
    let mut bodies = [0.0, 1.0, 2.0, 3.0, 4.0].map(|i| Body {
        at: vector(10.0),
        v: vector(0.3),
        mass: if i == 0.0 { 40.0 } else { 0.01 * i },
    });
    const DT: f64 = 0.001;
    for _ in 0..n * 1000 {
        for i in 0..bodies.len() {
            let (left, right) = bodies.split_at_mut(i + 1);
            let a = &mut left[i];
            for b in right {
                let d = [a.at[0] - b.at[0], a.at[1] - b.at[1], a.at[2] - b.at[2]];
                let square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2] + 0.01;
                let pull = DT / (square * square.sqrt());
                for (k, d) in d.iter().enumerate() {
                    a.v[k] -= d * b.mass * pull;
                    b.v[k] += d * a.mass * pull;
                }
            }
        }
        for b in &mut bodies {
            for k in 0..3 {
                b.at[k] += DT * b.v[k];
            }
        }
    }
    of_floats(bodies.iter().flat_map(|b| &b.at))
}

fn matrix(random: &mut Random, size: usize) -> Vec<f64> {
    (0..size * size).map(|i| random.float() + if i % (size + 1) == 0 { size as f64 } else { 0.0 }).collect()
}

/// Dense LU decomposition of a 64×64 matrix, without pivots (it is diagonally dominant).
pub fn lu(n: u64) -> u64 {
    const N: usize = 64;
    let original = matrix(&mut Random::new(11), N);
    let mut d = Digest::new();
    for i in 0..n * 4 {
        let mut m = original.clone();
        m[0] += i as f64;
        for k in 0..N {
            let (top, rest) = m.split_at_mut((k + 1) * N);
            let pivot = &top[k * N..];
            for row in rest.chunks_exact_mut(N) {
                let factor = row[k] / pivot[k];
                row[k] = factor;
                for (x, p) in row[k + 1..].iter_mut().zip(&pivot[k + 1..]) {
                    *x -= factor * p;
                }
            }
        }
        d.float(m[N * N - 1]).float(m[N * (N - 1)]);
    }
    d.end()
}

/// Product of 64×64 matrices.
pub fn matmul(n: u64) -> u64 {
    const N: usize = 64;
    let mut random = Random::new(12);
    let (mut a, b) = (matrix(&mut random, N), matrix(&mut random, N));
    for _ in 0..n * 2 {
        let mut c = vec![0.0; N * N];
        for (row, out) in a.chunks_exact(N).zip(c.chunks_exact_mut(N)) {
            for (x, other) in row.iter().zip(b.chunks_exact(N)) {
                for (o, y) in out.iter_mut().zip(other) {
                    *o += x * y;
                }
            }
        }
        // kept in range: the next product starts from this one
        a.iter_mut().zip(&c).for_each(|(x, y)| *x = y / 128.0);
    }
    of_floats(&a)
}

/// Spectral norm of the infinite matrix 1/((i+j)(i+j+1)/2+i+1), cut at 100.
pub fn spectral(n: u64) -> u64 {
    const N: usize = 100;
    let element = |i: usize, j: usize| 1.0 / ((i + j) * (i + j + 1) / 2 + i + 1) as f64;
    let multiply = |v: &[f64], transposed: bool| -> Vec<f64> {
        let at = |i, j| if transposed { element(j, i) } else { element(i, j) };
        (0..N).map(|i| v.iter().enumerate().map(|(j, x)| at(i, j) * x).sum()).collect()
    };
    let (mut u, mut v) = (vec![1.0; N], vec![]);
    for _ in 0..n {
        v = multiply(&multiply(&u, false), true);
        u = multiply(&multiply(&v, false), true);
        let largest = u.iter().fold(0.0f64, |m, x| m.max(*x));
        u.iter_mut().for_each(|x| *x /= largest);
    }
    let (top, bottom) = u.iter().zip(&v).fold((0.0, 0.0), |(t, b), (x, y)| (t + x * y, b + y * y));
    Digest::new().float(top / bottom).end()
}

/// A finite impulse response filter: 32 taps over 4,096 samples in single precision.
pub fn fir(n: u64) -> u64 {
    const TAPS: usize = 32;
    const SAMPLES: usize = 4096;
    let mut random = Random::new(13);
    let taps: Vec<f32> = (0..TAPS).map(|_| random.float() as f32 / 8.0).collect();
    let mut samples: Vec<f32> = (0..SAMPLES + TAPS).map(|_| random.float() as f32).collect();
    let mut out = vec![0.0f32; SAMPLES];
    for _ in 0..n * 2 {
        out.fill(0.0);
        for (k, t) in black_box(&taps).iter().enumerate() {
            for (o, s) in out.iter_mut().zip(&samples[k..]) {
                *o += t * s;
            }
        }
        samples.iter_mut().zip(&out).for_each(|(s, o)| *s = 0.5 * *s + 0.5 * o.clamp(-1.0, 1.0));
    }
    let mut d = Digest::new();
    out.iter().for_each(|o| {
        d.word(u64::from(o.to_bits()));
    });
    d.end()
}
