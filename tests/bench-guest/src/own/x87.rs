//! x87 kernels in assembly, as compilers for the 387 wrote them. Source: Intel SDM vol. 1, chapter 8.
#![expect(unsafe_code, reason = "x87 instructions have no other spelling")]

use crate::digest::{Digest, Random, of_floats};
use std::arch::asm;

/// Runs x87 assembly that leaves the register stack as it found it.
macro_rules! x87 {
    ($($code:literal),+ $(,)?; $($operand:tt)*) => {
        asm!(
            $($code),+, $($operand)*,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            options(nostack),
        )
    };
}

/// Iterations of one point, and where it ended.
fn escape(c: [f64; 2], limit: u32) -> (u32, [f64; 2]) {
    let (mut left, mut z) = (limit, [0.0; 2]);
    let four = 4.0f64;
    // SAFETY: reads `c` and `four`, writes `z`; eight registers are enough (seven are used) and all are popped.
    unsafe {
        x87!(
            "fld qword ptr [{c} + 8]",
            "fld qword ptr [{c}]",
            "fldz",
            "fldz",
            "2:", // x, y, cx, cy
            "fld st(0)",
            "fmul st(0), st(0)",
            "fld st(2)",
            "fmul st(0), st(0)",
            "fld st(1)",
            "fadd st(0), st(1)", // x² + y², y², x², x, y, cx, cy
            "fcomp qword ptr [{four}]",
            "fnstsw ax",
            "test ah, 0x45",
            "jz 3f",
            "fsubp st(1), st(0)",
            "fadd st(0), st(3)", // new x, x, y, cx, cy
            "fxch st(2)",
            "fmulp st(1), st(0)",
            "fadd st(0), st(0)",
            "fadd st(0), st(3)", // new y, new x, cx, cy
            "fxch st(1)",
            "dec {left:e}",
            "jnz 2b",
            "fldz",
            "fldz",
            "3:",
            "fstp st(0)",
            "fstp st(0)",
            "fstp qword ptr [{z}]",
            "fstp qword ptr [{z} + 8]",
            "fstp st(0)",
            "fstp st(0)";
            c = in(reg) c.as_ptr(),
            z = in(reg) z.as_mut_ptr(),
            four = in(reg) &raw const four,
            left = inout(reg) left,
            out("ax") _
        );
    }
    (limit - left, z)
}

/// The Mandelbrot set on the register stack, 32×32 points.
pub fn mandelbrot(n: u64) -> u64 {
    const SIZE: u32 = 32;
    let mut d = Digest::new();
    for round in 0..n {
        for i in 0..SIZE * SIZE {
            let (x, y) = (f64::from(i % SIZE), f64::from(i / SIZE));
            let c = [x * 3.0 / 32.0 - 2.0 + round as f64 * 1e-3, y * 3.0 / 32.0 - 1.5];
            let (count, z) = escape(c, 100);
            d.word(u64::from(count)).float(z[0]).float(z[1]);
        }
    }
    d.end()
}

/// Inner products of 1,000 doubles, accumulated in 80 bits.
pub fn dot(n: u64) -> u64 {
    const N: usize = 1000;
    let mut random = Random::new(30);
    let mut a: Vec<f64> = (0..N).map(|_| random.float()).collect();
    let b: Vec<f64> = (0..N).map(|_| random.float()).collect();
    for i in 0..n * 50 {
        let mut sum = 0.0f64;
        // SAFETY: reads N values of `a` and `b`, writes `sum`; two registers, both popped.
        unsafe {
            x87!(
                "fldz",
                "2:",
                "fld qword ptr [{a} + 8 * {i}]",
                "fmul qword ptr [{b} + 8 * {i}]",
                "faddp st(1), st(0)",
                "inc {i}",
                "cmp {i}, {n}",
                "jne 2b",
                "fstp qword ptr [{sum}]";
                a = in(reg) a.as_ptr(),
                b = in(reg) b.as_ptr(),
                sum = in(reg) &raw mut sum,
                n = in(reg) N,
                i = inout(reg) 0usize => _
            );
        }
        a[(i % N as u64) as usize] = sum / 64.0;
    }
    of_floats(&a)
}

/// Integers to floating point and back with truncation, by changing the control word as C compilers did.
pub fn convert(n: u64) -> u64 {
    let mut values: Vec<i32> = (1..1001).collect();
    let (scale, mut words) = (1.618_033_988_75f64, [0u16; 2]);
    for _ in 0..n * 20 {
        // SAFETY: reads `scale`, changes the values and the two control words; one register, popped; the control word is
        // put back.
        unsafe {
            x87!(
                "2:",
                "fild dword ptr [{v} + 4 * {i}]",
                "fmul qword ptr [{scale}]",
                "fnstcw word ptr [{w}]",
                "movzx eax, word ptr [{w}]",
                "or ah, 0x0c",
                "mov word ptr [{w} + 2], ax",
                "fldcw word ptr [{w} + 2]",
                "fistp dword ptr [{v} + 4 * {i}]",
                "fldcw word ptr [{w}]",
                "and dword ptr [{v} + 4 * {i}], 0xffffff",
                "inc {i}",
                "cmp {i}, {n}",
                "jne 2b";
                v = in(reg) values.as_mut_ptr(),
                n = in(reg) values.len(),
                scale = in(reg) &raw const scale,
                w = in(reg) words.as_mut_ptr(),
                i = inout(reg) 0usize => _,
                out("eax") _
            );
        }
    }
    let mut d = Digest::new();
    values.iter().for_each(|v| {
        d.word(*v as u64);
    });
    d.end()
}

/// Four elements rewritten from each other.
fn elements(e: &mut [f64; 4], t: f64, rounds: u64) {
    // SAFETY: reads and writes the four elements, reads `t`; one register, popped.
    unsafe {
        x87!(
            "2:",
            "fld qword ptr [{e}]",
            "fadd qword ptr [{e} + 8]",
            "fadd qword ptr [{e} + 16]",
            "fsub qword ptr [{e} + 24]",
            "fmul qword ptr [{t}]",
            "fst qword ptr [{e}]",
            "fadd qword ptr [{e} + 8]",
            "fsub qword ptr [{e} + 16]",
            "fadd qword ptr [{e} + 24]",
            "fmul qword ptr [{t}]",
            "fst qword ptr [{e} + 8]",
            "fsubr qword ptr [{e}]",
            "fadd qword ptr [{e} + 16]",
            "fadd qword ptr [{e} + 24]",
            "fmul qword ptr [{t}]",
            "fst qword ptr [{e} + 16]",
            "fsub qword ptr [{e}]",
            "fadd qword ptr [{e} + 8]",
            "fadd qword ptr [{e} + 24]",
            "fmul qword ptr [{t}]",
            "fstp qword ptr [{e} + 24]",
            "dec {n}",
            "jnz 2b";
            e = in(reg) e.as_mut_ptr(),
            t = in(reg) &raw const t,
            n = inout(reg) rounds => _
        );
    }
}

/// x and y become `t * atan(t2 * sin x * cos x / (cos(x+y) + cos(x-y) - 1))`, one after the other.
fn trigonometry(v: &mut [f64; 2], t: [f64; 2], rounds: u64) {
    for i in 0..2 * rounds {
        let (this, other) = if i % 2 == 0 { (0, 1) } else { (1, 0) };
        let (mut x, y) = (v[this], v[other]);
        // SAFETY: reads `x`, `y` and `t`, writes `x`; four registers, all popped.
        unsafe {
            x87!(
                "fld qword ptr [{x}]",
                "fsincos",
                "fmulp st(1), st(0)",
                "fmul qword ptr [{t} + 8]",
                "fld qword ptr [{x}]",
                "fadd qword ptr [{y}]",
                "fcos",
                "fld qword ptr [{x}]",
                "fsub qword ptr [{y}]",
                "fcos",
                "faddp st(1), st(0)",
                "fld1",
                "fsubp st(1), st(0)",
                "fdivp st(1), st(0)",
                "fld1",
                "fpatan",
                "fmul qword ptr [{t}]",
                "fstp qword ptr [{x}]";
                x = in(reg) &raw mut x,
                y = in(reg) &raw const y,
                t = in(reg) t.as_ptr()
            );
        }
        v[this] = x;
    }
}

/// `x` becomes `sqrt(exp(ln(x) / t))`.
fn exponentials(x: &mut f64, t: f64, rounds: u64) {
    // SAFETY: reads and writes `x`, reads `t`; three registers, all popped.
    unsafe {
        x87!(
            "2:",
            "fldln2",
            "fld qword ptr [{x}]",
            "fyl2x",
            "fdiv qword ptr [{t}]",
            "fldl2e",
            "fmulp st(1), st(0)",
            "fld st(0)",
            "frndint",
            "fsub st(1), st(0)",
            "fxch st(1)",
            "f2xm1",
            "fld1",
            "faddp st(1), st(0)",
            "fscale",
            "fstp st(1)",
            "fsqrt",
            "fstp qword ptr [{x}]",
            "dec {n}",
            "jnz 2b";
            x = in(reg) x,
            t = in(reg) &raw const t,
            n = inout(reg) rounds => _
        );
    }
}

/// The mix of the Whetstone benchmark: elements of an array, trigonometric functions, exponentials.
///
/// Processors round transcendental functions differently, so their part of the digest has nine digits.
pub fn whetstone(n: u64) -> u64 {
    let mut e = [1.0, -1.0, -1.0, -1.0];
    let (mut v, mut x) = ([0.5, 0.5], 0.75);
    for _ in 0..n {
        elements(&mut e, 0.499_975, 600);
        trigonometry(&mut v, [0.499_975, 2.0], 32);
        exponentials(&mut x, 0.500_250_25, 93);
    }
    let mut d = Digest::new();
    e.iter().for_each(|v| {
        d.float(*v);
    });
    [v[0], v[1], x].iter().for_each(|v| {
        d.word((v * 1e9).round() as i64 as u64);
    });
    d.end()
}
