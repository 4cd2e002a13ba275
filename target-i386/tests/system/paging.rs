//! Paging as guest code meets it: error codes, CR2, accessed and dirty bits, flushes, SMEP, SMAP, WP, NX, 32-bit and PAE.
use crate::machine::*;
use accel::tcg::W;
use iced_x86::code_asm::*;
use target_i386::reg::*;

const PT: u64 = TABLES + 0x3000;
/// The page that tests change, and its entry.
const PAGE: u64 = 0x9_0000;
const PTE: u64 = PT + (PAGE >> 12) * 8;
const P: u64 = 1;
const RW: u64 = 2;
const US: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const NX: u64 = 1 << 63;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Access {
    Read,
    Write,
    Fetch,
}
use Access::*;

/// Accesses PAGE under this entry; the page fault's error code, if there is one.
fn access(m: &mut Machine, entry: u64, user: bool, what: Access) -> Option<u64> {
    m.put64(PTE, entry | if entry & P != 0 { PAGE } else { 0 });
    m.put(PAGE, &[0xcd, 0x80]);
    m.cpu.flush();
    if user {
        m.ring3();
        // Leave by a gate of ring 3 whatever happens.
    }
    m.set_reg(RBX, PAGE);
    let at = CODE;
    m.assemble(at, |a| {
        match what {
            Read => a.mov(al, byte_ptr(rbx))?,
            Write => a.mov(byte_ptr(rbx), 0xcd)?,
            Fetch => a.jmp(rbx)?,
        }
        a.int(0x80)
    });
    m.go(at);
    match m.vector() {
        Some(0x80) => None,
        Some(14) => {
            assert_eq!(m.cpu.state().cr2, PAGE);
            let [code, ip] = m.frame();
            assert_eq!(ip, if what == Fetch { PAGE } else { CODE });
            Some(code)
        }
        v => panic!("vector {v:?} at {:#x}", m.cpu.pc()),
    }
}
#[test]
fn every_kind_of_fault_with_its_code() {
    for user in [false, true] {
        let u = if user { 4 } else { 0 };
        for (entry, what, code) in [
            (0, Read, Some(0)),
            (0, Write, Some(2)),
            (0, Fetch, Some(0x10)),
            (P | US, Write, Some(3)),
            (P | US | RW | NX, Fetch, Some(0x11)),
            (P | US | RW | 1 << 45, Read, Some(9)),
            (P | US | RW | 1 << 45, Write, Some(0xb)),
            (P | US | RW | NX, Write, None),
            (P | US | RW, Fetch, None),
        ] {
            let mut m = Machine::long();
            assert_eq!(access(&mut m, entry, user, what), code.map(|c| c | u), "{entry:#x} {what:?} user {user}");
        }
    }
    let mut m = Machine::long();
    assert_eq!(access(&mut m, P | RW, true, Read), Some(5));
    let mut m = Machine::long();
    assert_eq!(access(&mut m, P | RW, true, Fetch), Some(0x15));
}
#[test]
fn wp_smep_smap() {
    for (wp, smep, smap, ac) in [(0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 0, 0), (1, 0, 1, 0), (1, 1, 1, 1), (0, 1, 1, 0)] {
        for what in [Read, Write, Fetch] {
            for entry in [P | US, P | US | RW, P, P | RW] {
                let mut m = Machine::long();
                let (hot, s) = m.cpu.parts();
                s.cr0 = s.cr0 & !WP | wp << 16;
                s.cr4 |= smep << 20;
                s.sync(hot);
                // The program itself lies in user pages: make them the kernel's.
                for i in 0..0x100 {
                    m.put64(PT + i * 8, i << 12 | 3);
                }
                m.cpu.state().cr4 |= smap << 21;
                m.set_flags(2 | ac << 18);
                let user_page = entry & US != 0;
                let code = match what {
                    Read if user_page && smap == 1 && ac == 0 => Some(1),
                    Write if user_page && smap == 1 && ac == 0 => Some(3),
                    Write if entry & RW == 0 && wp == 1 => Some(3),
                    Fetch if user_page && smep == 1 => Some(0x11),
                    _ => None,
                };
                assert_eq!(
                    access(&mut m, entry, false, what),
                    code,
                    "wp {wp} smep {smep} smap {smap} ac {ac} {what:?} {entry:x}"
                );
            }
        }
    }
}
#[test]
fn stac_and_clac() {
    let mut m = Machine::long();
    for i in 0..0x100 {
        m.put64(PT + i * 8, i << 12 | 3);
    }
    m.put64(PTE, PAGE | 7);
    m.cpu.state().cr4 |= 1 << 21;
    m.run(|a| {
        a.stac()?;
        a.mov(rax, qword_ptr(PAGE))?;
        a.clac()?;
        a.mov(ebx, 1)?;
        a.mov(rax, qword_ptr(PAGE))
    });
    assert_eq!((m.vector(), m.reg(RBX)), (Some(14), 1));
    assert_eq!(m.frame::<1>(), [1]);
    m.ring3();
    m.put64(PT + (CODE >> 12) * 8, CODE | 7);
    m.put64(PT + ((STACK3 - 8) >> 12) * 8, (STACK3 - 8) & !0xfff | 7);
    m.cpu.flush();
    m.faults(6, None, 0, |a| a.stac());
}
#[test]
fn accessed_and_dirty_bits() {
    let mut m = Machine::long();
    m.put64(PTE, PAGE | 7);
    m.put64(TABLES, (TABLES + 0x1000) | 7);
    m.run(|a| {
        a.mov(rax, qword_ptr(PAGE))?;
        a.mov(rbx, qword_ptr(PTE))?;
        a.mov(qword_ptr(PAGE + 8), rax)?;
        a.mov(rcx, qword_ptr(PTE))?;
        a.hlt()
    });
    assert_eq!((m.reg(RBX), m.reg(RCX)), (PAGE | 7 | A, PAGE | 7 | A | D));
    assert_eq!(m.get64(TABLES) & A, A);
}
#[test]
fn a_fault_sets_neither() {
    let mut m = Machine::long();
    assert_eq!(access(&mut m, P | US, false, Write), Some(3));
    assert_eq!(m.get64(PTE), PAGE | P | US);
}
#[test]
fn invlpg_and_cr3_writes() {
    let mut m = Machine::long();
    m.put64(PTE, PAGE | 7);
    m.put64(PAGE, 1);
    m.put64(0xa_0000, 2);
    m.run(|a| {
        a.mov(rax, qword_ptr(PAGE))?;
        a.mov(rsi, PTE)?;
        a.mov(rdi, 0xa_0007u64)?;
        a.mov(qword_ptr(rsi), rdi)?;
        a.invlpg(ptr(PAGE))?;
        a.mov(rbx, qword_ptr(PAGE))?;
        a.mov(rdi, PAGE | 7)?;
        a.mov(qword_ptr(rsi), rdi)?;
        a.mov(rdx, cr3)?;
        a.mov(cr3, rdx)?;
        a.mov(rcx, qword_ptr(PAGE))?;
        a.hlt()
    });
    assert_eq!((m.reg(RAX), m.reg(RBX), m.reg(RCX)), (1, 2, 1));
}
#[test]
fn the_page_after_a_crossing_instruction_is_mapped_elsewhere() {
    // mov eax, imm32 begins 3 bytes before the page's end; what follows it lies in one of two pages.
    for threshold in [None, Some(1), Some(3)] {
        let mut m = threshold.map_or_else(Machine::long, Machine::long_jit);
        let start = PAGE - 3;
        assert!(m.bus.poke(start, &[0xb8, 1, 0]));
        for (at, high) in [(PAGE, 0), (0xa_0000, 1)] {
            // The rest, then a loop whose other end is in the first page: add esi, eax; dec ecx; jnz start; ret.
            assert!(m.bus.poke(at, &[high, 0, 0x01, 0xc6, 0xff, 0xc9, 0x75, 0xf5, 0xc3]));
        }
        m.put64(PTE, PAGE | 7);
        m.run(|a| {
            let mut top = a.create_label();
            a.xor(esi, esi)?;
            a.mov(ebx, 10)?;
            a.mov(rdi, PTE)?;
            a.set_label(&mut top)?;
            a.mov(ecx, 20)?;
            a.call(PAGE - 3)?;
            a.xor(qword_ptr(rdi), ((PAGE ^ 0xa_0000) as u32) as i32)?;
            a.invlpg(ptr(PAGE))?;
            a.dec(ebx)?;
            a.jne(top)?;
            a.hlt()
        });
        assert_eq!(m.reg(RSI), 5 * 20 + 5 * 20 * 0x1_0001, "threshold {threshold:?}");
    }
}
#[test]
fn global_pages_survive_cr3_writes_only() {
    let mut m = Machine::long();
    m.cpu.state().cr4 |= 1 << 7;
    m.put64(PTE, PAGE | 0x107);
    m.put64(PAGE, 1);
    m.put64(0xa_0000, 2);
    m.run(|a| {
        a.mov(rax, qword_ptr(PAGE))?;
        a.mov(rsi, PTE)?;
        a.mov(rdi, 0xa_0107u64)?;
        a.mov(qword_ptr(rsi), rdi)?;
        a.mov(rdx, cr3)?;
        a.mov(cr3, rdx)?;
        a.mov(rbx, qword_ptr(PAGE))?;
        a.mov(rdx, cr4)?;
        a.xor(edx, 0x80)?;
        a.mov(cr4, rdx)?;
        a.mov(rcx, qword_ptr(PAGE))?;
        a.hlt()
    });
    assert_eq!((m.reg(RAX), m.reg(RBX), m.reg(RCX)), (1, 1, 2));
}
/// Calls a function whose page is swapped for another between two calls: how often the old one ran of three calls, the second
/// after the change of the entry, the third after `flush`.
fn calls_of_the_old_function(entry: u64, flush: Piece) -> u64 {
    let mut m = Machine::long();
    m.cpu.state().cr4 |= 1 << 7;
    m.put64(PTE, PAGE | entry);
    m.put(PAGE, &[0x48, 0xff, 0xc0, 0xc3]); // inc rax; ret
    m.put(0xa_0000, &[0x48, 0xff, 0xc3, 0xc3]); // inc rbx; ret
    m.set_reg(RAX, 0);
    m.set_reg(RBX, 0);
    m.set_reg(RCX, PTE);
    m.set_reg(RSI, 0xa_0000 | entry);
    m.set_reg(RDI, PAGE);
    m.run(|a| {
        a.call(rdi)?;
        a.mov(qword_ptr(rcx), rsi)?;
        a.call(rdi)?;
        flush(a)?;
        a.call(rdi)?;
        a.hlt()
    });
    assert_eq!(m.reg(RAX) + m.reg(RBX), 3);
    m.reg(RAX)
}
#[test]
fn branches_forget_what_a_flush_forgets() {
    const G: u64 = 0x100;
    let reload: Piece = |a| {
        a.mov(rdx, cr3)?;
        a.mov(cr3, rdx)
    };
    let invlpg: Piece = |a| a.invlpg(byte_ptr(rdi));
    assert_eq!(calls_of_the_old_function(P, reload), 2);
    assert_eq!(calls_of_the_old_function(P, invlpg), 2);
    assert_eq!(calls_of_the_old_function(P | G, reload), 3, "a global page survives");
    assert_eq!(calls_of_the_old_function(P | G, invlpg), 2);
}
#[test]
fn non_canonical_addresses() {
    let mut m = Machine::long();
    m.set_reg(RBX, 0x8000_0000_0000);
    m.faults(13, Some(0), 0, |a| a.mov(rax, qword_ptr(rbx)));
    m.set_reg(RBP, 0x8000_0000_0000);
    m.faults(12, Some(0), 0, |a| a.mov(rax, qword_ptr(rbp)));
    // A branch is refused where it stands.
    m.faults(13, Some(0), 0, |a| a.jmp(rbx));
}
#[test]
fn page_crossers_fault_on_the_second_page() {
    let mut m = Machine::long();
    m.put64(PTE, 0);
    m.set_reg(RBX, PAGE - 3);
    m.put32(PAGE - 4, 0x1122_3344);
    m.faults(14, Some(2), 0, |a| a.mov(qword_ptr(rbx), rax));
    assert_eq!(m.cpu.state().cr2, PAGE);
    assert_eq!(m.get32(PAGE - 4), 0x1122_3344, "nothing was written");
}
#[test]
fn thirty_two_bit_paging() {
    let mut m = Machine::protected();
    // 4 MiB page one to one, then a table that maps 0x400000 to the second page of RAM's megabyte.
    m.put32(TABLES, 0x87);
    m.put32(TABLES + 4, (TABLES + 0x1000) as u32 | 7);
    m.put32(TABLES + 0x1000, 0x9_0000 | 7);
    m.put32(TABLES + 0x1004, 0x9_0000 | 5);
    m.put32(0x9_0010, 0xabcd);
    let (hot, s) = m.cpu.parts();
    s.cr4 |= 0x10;
    s.cr3 = TABLES;
    s.sync(hot);
    m.run(|a| {
        a.mov(eax, cr0)?;
        a.or(eax, 0x8001_0000u32 as i32)?;
        a.mov(cr0, eax)?;
        a.mov(ebx, dword_ptr(0x40_0010))?;
        a.mov(dword_ptr(0x40_1014), ebx)
    });
    assert_eq!((m.reg(RBX), m.vector(), m.frame()), (0xabcd, Some(14), [3]));
    assert_eq!(m.cpu.state().cr2, 0x40_1014);
    assert_eq!(m.get32(TABLES) & 0x60, 0x60);
}
#[test]
fn pae_paging_loads_pdptes_with_cr3() {
    let mut m = Machine::protected();
    m.put64(TABLES, (TABLES + 0x1000) | 1);
    m.put64(TABLES + 8, 0);
    m.put64(TABLES + 0x1000, 0x87);
    m.put64(TABLES + 0x1008, 0x87 | 1 << 63);
    let (hot, s) = m.cpu.parts();
    s.cr4 |= PAE;
    s.cr3 = TABLES;
    s.efer |= NXE;
    s.sync(hot);
    m.put32(0x1_0000, 0x55);
    m.run(|a| {
        a.mov(eax, cr0)?;
        a.or(eax, 0x8000_0000u32 as i32)?;
        a.mov(cr0, eax)?;
        a.mov(ebx, dword_ptr(0x21_0000))?;
        a.mov(eax, 0x21_0000)?;
        a.jmp(eax)
    });
    assert_eq!((m.reg(RBX), m.vector(), m.frame()), (0x55, Some(14), [0x11, 0x21_0000]));
    // A new PDPTE in memory counts from the next CR3 write on.
    m.run(|a| {
        a.mov(dword_ptr(TABLES as u32 + 8), (TABLES + 0x1000) as u32 | 1)?;
        a.mov(eax, cr3)?;
        a.mov(cr3, eax)?;
        a.mov(ecx, dword_ptr(0x4001_0000))?;
        a.hlt()
    });
    assert_eq!(m.reg(RCX), 0x55);
    // Reserved bits of a PDPTE are #GP at the load.
    m.put64(TABLES + 8, 3);
    m.faults(13, Some(0), 3, |a| {
        a.mov(eax, cr3)?;
        a.mov(cr3, eax)
    });
}
#[test]
fn a20_masks_physical_addresses() {
    let mut m = Machine::real();
    m.put16(0x0010, 0x1111);
    m.put16(0x10_0010, 0x2222);
    for (mask, want) in [(!0u64, 0x2222), (!(1 << 20), 0x1111)] {
        m.cpu.state().a20_mask = mask;
        m.cpu.flush();
        m.assemble_bits(16, 0x5000, 0x5000, |a| {
            a.mov(ax, 0xffff)?;
            a.mov(ds, ax)?;
            a.mov(bx, word_ptr(0x20))?;
            a.hlt()
        });
        m.go(0x5000);
        assert_eq!(m.reg(RBX), want);
    }
    assert_eq!(m.stack(W::B2, 0), 0);
}
