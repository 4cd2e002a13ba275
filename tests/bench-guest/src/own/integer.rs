//! Integer kernels: plain Rust, nothing of the operating system.

use crate::digest::{Digest, Random, of_words};
use std::hint::black_box;

/// The instructions of a small register machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Code {
    Load,
    Add,
    Sub,
    Mul,
    Xor,
    Shift,
    Jump,
    JumpZero,
    Halt,
}

/// One instruction: code and three small operands.
type Instr = (Code, u8, u8, u8);

fn interpret(program: &[Instr], regs: &mut [u64; 16]) {
    let mut at = 0;
    loop {
        let (code, a, b, c) = program[at];
        let (x, y) = (regs[usize::from(b & 15)], regs[usize::from(c & 15)]);
        let d = &mut regs[usize::from(a & 15)];
        at += 1;
        match code {
            Code::Load => *d = u64::from(b),
            Code::Add => *d = x.wrapping_add(y),
            Code::Sub => *d = x.wrapping_sub(y),
            Code::Mul => *d = x.wrapping_mul(y),
            Code::Xor => *d = x ^ y,
            Code::Shift => *d = x >> (y & 63),
            Code::Jump => at = usize::from(a),
            Code::JumpZero if x == 0 => at = usize::from(a),
            Code::JumpZero => {}
            Code::Halt => return,
        }
    }
}

/// A byte-code loop: two nested loops of a register machine.
pub fn bytecode(n: u64) -> u64 {
    use Code::*;
    let program = black_box(vec![
        (Load, 1, 200, 0),    // outer count
        (Load, 15, 1, 0),     // one
        (Load, 14, 13, 0),    // a shift
        (JumpZero, 14, 1, 0), // 3: outer loop
        (Load, 2, 100, 0),    // inner count
        (JumpZero, 12, 2, 0), // 5: inner loop
        (Mul, 3, 1, 2),
        (Xor, 0, 0, 3),
        (Shift, 4, 0, 14),
        (Add, 0, 0, 4),
        (Sub, 2, 2, 15),
        (Jump, 5, 0, 0),
        (Sub, 1, 1, 15), // 12
        (Jump, 3, 0, 0),
        (Halt, 0, 0, 0), // 14
    ]);
    let mut regs = [0; 16];
    for i in 0..n {
        regs[0] ^= i;
        interpret(&program, &mut regs);
    }
    of_words(regs)
}

/// Counts the primes below `limit`.
pub fn primes(flags: &mut [u8]) -> u64 {
    flags.fill(1);
    let mut count = 0;
    for i in 2..flags.len() {
        if flags[i] != 0 {
            count += 1;
            let mut j = i * i;
            while j < flags.len() {
                flags[j] = 0;
                j += i;
            }
        }
    }
    count
}

/// Primes below 100,000.
pub fn sieve(n: u64) -> u64 {
    let mut flags = vec![0; 100_000];
    (0..n).fold(0, |sum: u64, i| sum.wrapping_mul(31).wrapping_add(primes(&mut flags) + i))
}

fn quicksort(v: &mut [u32]) {
    if v.len() <= 12 {
        for i in 1..v.len() {
            let x = v[i];
            let mut j = i;
            while j > 0 && v[j - 1] > x {
                v[j] = v[j - 1];
                j -= 1;
            }
            v[j] = x;
        }
        return;
    }
    let pivot = v[v.len() / 2];
    let (mut i, mut j) = (0, v.len() - 1);
    loop {
        while v[i] < pivot {
            i += 1;
        }
        while v[j] > pivot {
            j -= 1;
        }
        if i >= j {
            break;
        }
        v.swap(i, j);
        i += 1;
        j -= 1;
    }
    let (low, high) = v.split_at_mut(i);
    quicksort(low);
    quicksort(high);
}

/// Quicksort of 10,000 numbers.
pub fn qsort(n: u64) -> u64 {
    let mut random = Random::new(1);
    let mut d = Digest::new();
    for _ in 0..n {
        let mut v: Vec<u32> = (0..10_000).map(|_| random.word() as u32).collect();
        quicksort(&mut v);
        v.iter().step_by(97).for_each(|x| {
            d.word(u64::from(*x));
        });
        assert!(v.is_sorted());
    }
    d.end()
}

#[inline(never)]
fn fibonacci(n: u64) -> u64 {
    if n < 2 { n } else { fibonacci(black_box(n - 1)) + fibonacci(black_box(n - 2)) }
}

/// Calls and returns.
pub fn fib(n: u64) -> u64 {
    (0..n).fold(0, |sum, i| sum ^ (fibonacci(black_box(20)) << (i % 40)))
}

/// What the objects of [`virtual_calls`] can do.
trait Step {
    fn step(&mut self, x: u64) -> u64;
}

struct Counter(u64);
struct Mixer(u64);
struct Gate(u64);
struct Delay([u64; 2]);

impl Step for Counter {
    fn step(&mut self, x: u64) -> u64 {
        self.0 += x & 7;
        x.wrapping_add(self.0)
    }
}
impl Step for Mixer {
    fn step(&mut self, x: u64) -> u64 {
        self.0 = self.0.rotate_left(5) ^ x;
        self.0
    }
}
impl Step for Gate {
    fn step(&mut self, x: u64) -> u64 {
        if x & self.0 == 0 { x >> 1 } else { x.wrapping_mul(3) }
    }
}
impl Step for Delay {
    fn step(&mut self, x: u64) -> u64 {
        let [a, b] = self.0;
        self.0 = [b, x];
        a.wrapping_sub(b)
    }
}

/// Virtual calls: 256 objects of four types in random order.
pub fn virtual_calls(n: u64) -> u64 {
    let mut random = Random::new(2);
    let mut objects: Vec<Box<dyn Step>> = (0..256)
        .map(|_| -> Box<dyn Step> {
            let seed = random.word();
            match random.below(4) {
                0 => Box::new(Counter(seed & 0xff)),
                1 => Box::new(Mixer(seed)),
                2 => Box::new(Gate(seed)),
                _ => Box::new(Delay([seed, !seed])),
            }
        })
        .collect();
    let mut x = 1;
    for _ in 0..n * 100 {
        for o in &mut objects {
            x = o.step(x);
        }
    }
    x
}

/// Schoolbook products of 4,096-bit numbers.
pub fn bignum(n: u64) -> u64 {
    const LIMBS: usize = 64;
    let mut random = Random::new(3);
    let mut a: Vec<u64> = (0..LIMBS).map(|_| random.word()).collect();
    let b: Vec<u64> = (0..LIMBS).map(|_| random.word()).collect();
    for _ in 0..n * 20 {
        let mut product = [0u64; 2 * LIMBS];
        for (i, x) in a.iter().enumerate() {
            let mut carry = 0u64;
            for (y, p) in b.iter().zip(&mut product[i..]) {
                let t = u128::from(*x) * u128::from(*y) + u128::from(*p) + u128::from(carry);
                (*p, carry) = (t as u64, (t >> 64) as u64);
            }
            product[i + LIMBS] = carry;
        }
        let mut carry = false;
        for (x, (low, high)) in a.iter_mut().zip(product.iter().zip(&product[LIMBS..])) {
            let (s, c1) = low.overflowing_add(*high);
            let (s, c2) = s.overflowing_add(u64::from(carry));
            (*x, carry) = (s, c1 | c2);
        }
    }
    of_words(a)
}

/// CRC-32 (reflected 0xEDB88320) of 64 KiB by a table of bytes.
pub fn crc32(n: u64) -> u64 {
    let table: Vec<u32> =
        (0..256u32).map(|i| (0..8).fold(i, |c, _| if c & 1 == 0 { c >> 1 } else { (c >> 1) ^ 0xedb8_8320 })).collect();
    let data = Random::new(4).bytes(65_536);
    let crc = |from: u32| !data.iter().fold(!from, |c, b| table[usize::from(c as u8 ^ b)] ^ (c >> 8));
    u64::from((0..n).fold(0, |c, _| crc(c)))
}

struct Node {
    value: u64,
    next: Option<Box<Node>>,
}

/// Linked lists of 1,000 nodes: built, reversed, summed, freed.
pub fn list(n: u64) -> u64 {
    let mut sum = 0u64;
    for round in 0..n * 10 {
        let mut head = None;
        for value in 0..1000 {
            head = Some(Box::new(Node { value: value ^ round, next: head }));
        }
        for _ in 0..4 {
            let mut reversed = None;
            while let Some(mut node) = head {
                head = node.next.take();
                node.next = reversed;
                reversed = Some(node);
            }
            head = reversed;
            let mut at = &head;
            while let Some(node) = at {
                sum = sum.rotate_left(1).wrapping_add(node.value);
                at = &node.next;
            }
        }
        // without recursion
        while let Some(mut node) = head {
            head = node.next.take();
        }
    }
    sum
}
