//! Code written and rewritten at run time. Source: Intel SDM vol. 2 (encodings), vol. 3 §13.6 (self-modifying code needs nothing on the
//! processor that wrote it).
#![expect(unsafe_code, reason = "calls the code that was written")]

use crate::{digest::Random, sys::Pages};

/// Writes x86-64 instructions for functions from RDI to RAX.
struct Writer {
    code: Vec<u8>,
}

impl Writer {
    /// A function that starts with `mov rax, rdi`.
    fn new() -> Self {
        Self { code: vec![0x48, 0x89, 0xf8] }
    }

    /// One arithmetic instruction on RAX, as `random` says.
    fn arithmetic(&mut self, random: &mut Random) {
        let r = random.word();
        let imm = (r >> 32) as u32;
        let with_imm = |op: &[u8]| [op, &imm.to_le_bytes()].concat();
        self.code.extend(match r % 8 {
            0 => with_imm(&[0x48, 0x05]),                // add rax, imm32
            1 => with_imm(&[0x48, 0x35]),                // xor rax, imm32
            2 => with_imm(&[0x48, 0x2d]),                // sub rax, imm32
            3 => with_imm(&[0x48, 0x69, 0xc0]),          // imul rax, rax, imm32
            4 => vec![0x48, 0xc1, 0xc0, imm as u8 & 63], // rol rax, imm8
            5 => vec![0x48, 0x8d, 0x04, 0x47],           // lea rax, [rdi + rax * 2]
            6 => vec![0x48, 0x0f, 0xc8],                 // bswap rax
            _ => vec![0x48, 0x01, 0xf8],                 // add rax, rdi
        });
    }

    /// What `body` writes, repeated `times`.
    fn repeat(&mut self, times: u32, body: impl FnOnce(&mut Self)) {
        self.code.push(0xb9); // mov ecx, imm32
        self.code.extend(times.to_le_bytes());
        let head = self.code.len();
        body(self);
        self.code.extend([0xff, 0xc9, 0x0f, 0x85]); // dec ecx; jnz rel32
        let back = head as i32 - (self.code.len() as i32 + 4);
        self.code.extend(back.to_le_bytes());
    }

    /// The function, which returns here.
    fn end(mut self) -> Vec<u8> {
        self.code.push(0xc3);
        self.code
    }
}

fn function(random: &mut Random, length: u64, times: u32) -> Vec<u8> {
    let mut w = Writer::new();
    w.repeat(times, |w| (0..length).for_each(|_| w.arithmetic(random)));
    w.end()
}

fn call(pages: &Pages, at: usize, x: u64) -> u64 {
    // SAFETY: `Writer` wrote a whole function there: arithmetic on RAX, RCX and RDI, then RET.
    unsafe { pages.call(at, x) }
}

/// New functions at new places of 1 MiB, as a compiler at run time makes them: 40 instructions, looped 50 times.
pub fn fresh(n: u64) -> u64 {
    let mut random = Random::new(50);
    let mut pages = Pages::map(1 << 20, true);
    let (mut at, mut x) = (0, 1);
    for _ in 0..n * 10 {
        let code = function(&mut random, 40, 50);
        if at + code.len() > 1 << 20 {
            at = 0;
        }
        pages.bytes()[at..at + code.len()].copy_from_slice(&code);
        x = call(&pages, at, x);
        at += code.len().next_multiple_of(16);
    }
    x
}

/// A new function at the same place each time, beside one that stays: 20 instructions, run twice.
pub fn rewrite(n: u64) -> u64 {
    let mut random = Random::new(51);
    let mut pages = Pages::map(4096, true);
    let stays = function(&mut random, 20, 2);
    pages.bytes()[2048..2048 + stays.len()].copy_from_slice(&stays);
    // written beforehand: the work is to run them
    let variants: Vec<_> = (0..64).map(|_| function(&mut random, 20, 2)).collect();
    let mut x = 1;
    for i in 0..n as usize * 50 {
        let code = &variants[i % variants.len()];
        pages.bytes()[..code.len()].copy_from_slice(code);
        x = call(&pages, 2048, call(&pages, 0, x));
    }
    x
}

/// The constant of an instruction changed before each call: inline caches, patched call sites.
pub fn patch(n: u64) -> u64 {
    let mut pages = Pages::map(4096, true);
    let mut w = Writer::new();
    let constant = w.code.len() + 2;
    w.code.extend([0x48, 0x05, 0, 0, 0, 0]); // add rax, imm32
    let mut random = Random::new(52);
    w.repeat(10, |w| (0..10).for_each(|_| w.arithmetic(&mut random)));
    let code = w.end();
    pages.bytes()[..code.len()].copy_from_slice(&code);
    let mut x = 1;
    for i in 0..n as u32 * 50 {
        pages.bytes()[constant..constant + 4].copy_from_slice(&(i & 0xffff).to_le_bytes());
        x = call(&pages, 0, x);
    }
    x
}

/// Data in the page of the code, written between calls: the code itself does not change.
pub fn beside(n: u64) -> u64 {
    let mut random = Random::new(53);
    let mut pages = Pages::map(4096, true);
    let code = function(&mut random, 20, 5);
    pages.bytes()[..code.len()].copy_from_slice(&code);
    let mut x = 1u64;
    for i in 0..n as usize * 50 {
        let at = 2048 + i % 200 * 8;
        pages.bytes()[at..at + 8].copy_from_slice(&x.to_le_bytes());
        x = call(&pages, 0, x) ^ u64::from(pages.bytes()[2048 + i % 100]);
    }
    x
}
