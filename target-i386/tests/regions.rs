//! Regions: how those of two pages are left, what becomes of the jump cache when one takes another's place, stores beside code.

use accel::tcg::{Bus, Exit, FlatBus, Group, JitConfig, Vcpu};
use iced_x86::code_asm::*;
use std::sync::Arc;
use target_i386::{EXIT_CAUGHT, X86, testing::*};

/// A page of code and the one behind it.
const FIRST: u64 = 0x1_0000;
const SECOND: u64 = FIRST + 0x1000;
/// Code that is in no region with those.
const OTHER: u64 = 0x2_0000;
const STACK: u64 = 0x8_0000;
/// Executions after which a block is compiled, at once.
const HOT: u16 = 20;

fn group() -> Arc<Group> {
    let group = Group::new();
    group.set_jit(JitConfig { quick: 0, threshold: HOT, cache: 1 << 20, synchronous: true, ..JitConfig::default() });
    group
}
/// Puts code at an address; the addresses of the labels it returns.
fn put(bus: &FlatBus, at: u64, f: impl FnOnce(&mut CodeAssembler) -> Vec<CodeLabel>) -> Vec<u64> {
    let mut a = CodeAssembler::new(64).expect("64-bit");
    let labels = f(&mut a);
    let options = iced_x86::BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    let r = a.assemble_options(at, options).expect("assembles");
    assert!(bus.poke(at, &r.inner.code_buffer));
    labels.iter().map(|l| r.label_ip(l).expect("a label of this code")).collect()
}
/// Puts a loop that adds two words of an object to RAX, and perhaps stores two of them.
fn sums(bus: &FlatBus, store: bool) {
    put(bus, FIRST, |a| {
        let mut top = a.create_label();
        a.set_label(&mut top).unwrap();
        a.add(rax, qword_ptr(rbx)).unwrap();
        a.add(rax, qword_ptr(rbx + 16)).unwrap();
        if store {
            a.mov(qword_ptr(rbx + 24), rcx).unwrap();
            a.mov(qword_ptr(rbx), rcx).unwrap();
        }
        a.dec(rcx).unwrap();
        a.jne(top).unwrap();
        a.ud2().unwrap();
        vec![]
    });
}
/// Runs from an address to a UD2, with what a loop there counts down in RCX.
fn run(v: &mut Vcpu<X86>, at: u64, rounds: u64) {
    let hot = v.hot();
    (hot.regs[1], hot.regs[4]) = (rounds, STACK);
    v.set_pc(at);
    assert_eq!(v.run(1_000_000), Exit::Target(EXIT_CAUGHT));
}

#[test]
fn a_loop_in_the_second_page_that_begins_at_its_end_is_left() {
    let bus = Arc::new(FlatBus::new(1 << 20));
    // (Control falls from one page into the other.)
    let top = SECOND - 3;
    put(&bus, top, |a| {
        let (mut body, mut end) = (a.create_label(), a.create_label());
        a.mov(rdx, rbx).unwrap();
        a.test(rdx, rdx).unwrap();
        a.jne(end).unwrap();
        a.set_label(&mut body).unwrap();
        a.inc(rax).unwrap();
        a.set_label(&mut end).unwrap();
        a.dec(rdx).unwrap();
        a.jne(body).unwrap();
        a.dec(rcx).unwrap();
        a.jne(top).unwrap();
        a.ud2().unwrap();
        vec![]
    });
    let mut v = bare_vcpu(&group(), bus);
    v.hot().regs[3] = 3;
    run(&mut v, top, 1000);
    let entered = v.counters().entered;
    assert!(entered > 0, "no region was made");
    // Rounds that take a second or two, should nothing stop them.
    v.hot().regs[3] = 1 << 30;
    (v.hot().regs[0], v.hot().regs[1]) = (0, 1);
    v.set_pc(top);
    assert_eq!(v.run(10_000), Exit::Budget);
    assert!(v.hot().regs[0] <= 5000, "{} rounds in 10000 instructions", v.hot().regs[0]);
}

#[test]
fn a_region_attached_with_its_second_page_is_known_to_the_jump_cache() {
    let bus = Arc::new(FlatBus::new(1 << 20));
    let [top, back, called]: [u64; 3] = put(&bus, FIRST, |a| {
        let [mut top, mut back, mut called] = [(); 3].map(|()| a.create_label());
        a.set_label(&mut top).unwrap();
        a.call(called).unwrap();
        a.set_label(&mut back).unwrap();
        a.test(edi, edi).unwrap();
        a.jne(SECOND).unwrap();
        a.dec(ecx).unwrap();
        a.jne(top).unwrap();
        a.ud2().unwrap();
        a.set_label(&mut called).unwrap();
        a.mov(ebx, 5).unwrap();
        a.ret().unwrap();
        vec![top, back, called]
    })
    .try_into()
    .expect("three labels");
    put(&bus, SECOND, |a| {
        for _ in 0..20 {
            a.inc(edx).unwrap();
        }
        a.xor(edi, esi).unwrap();
        a.dec(ecx).unwrap();
        a.jne(back).unwrap();
        a.ud2().unwrap();
        vec![]
    });
    let [overwrite, jump]: [u64; 2] = put(&bus, OTHER, |a| {
        let [mut overwrite, mut jump] = [(); 2].map(|()| a.create_label());
        a.set_label(&mut overwrite).unwrap();
        a.mov(byte_ptr(called + 1), 6).unwrap();
        a.ud2().unwrap();
        a.set_label(&mut jump).unwrap();
        a.mov(eax, back as u32).unwrap();
        a.jmp(rax).unwrap();
        vec![overwrite, jump]
    })
    .try_into()
    .expect("two labels");
    let group = group();
    let [mut one, mut two] = [(); 2].map(|()| bare_vcpu(&group, bus.clone()));
    // The second vCPU makes a region of both pages that begins where the call comes back.
    two.hot().regs[7] = 1;
    run(&mut two, back, 4 * u64::from(HOT));
    assert!(two.counters().entered > 0, "the second vCPU made no region");
    // The first makes one of the first page only, which is entered there as well,
    run(&mut one, top, 4 * u64::from(HOT));
    assert!(one.counters().entered > 0, "the first vCPU made no region");
    // remembers that in its jump cache,
    run(&mut one, jump, 1);
    // meets the second page, and gets the other's region,
    run(&mut one, SECOND, 2);
    // and loses what it has of the first page.
    run(&mut one, overwrite, 1);
    assert!(one.counters().dropped > 0, "{:?}", one.counters());
    run(&mut one, jump, 1);
    run(&mut one, top, 1);
    assert_eq!(one.hot().regs[3], 6, "the new code is run");
}

#[test]
fn stores_beside_code_mark_their_page_once_until_it_is_made_clean() {
    let bus = Arc::new(FlatBus::logged(1 << 20));
    put(&bus, FIRST, |a| {
        let mut top = a.create_label();
        a.set_label(&mut top).unwrap();
        a.mov(dword_ptr(FIRST + 0x800), ecx).unwrap();
        a.dec(ecx).unwrap();
        a.jne(top).unwrap();
        a.ud2().unwrap();
        vec![]
    });
    let group = group();
    let mut v = bare_vcpu(&group, bus.clone());
    // (After 64 such stores the page's code would be taken for a leftover.)
    run(&mut v, FIRST, 2 * u64::from(HOT));
    assert!(v.counters().entered > 0, "no region was made");
    let marked = |v: &mut Vcpu<X86>| {
        let before = bus.marks();
        run(v, FIRST, 5);
        bus.marks() - before
    };
    assert_eq!(marked(&mut v), 0, "it is marked");
    group.made_clean(bus.ram(0, FIRST).expect("RAM").host as usize, 4096);
    assert_eq!([marked(&mut v), marked(&mut v)], [1, 0]);
}

/// An object that lies in two pages, so that a check of both its fields always fails: they do not follow one another on the host.
#[test]
fn what_is_to_be_made_differently_is_made_soon() {
    const THRESHOLD: u16 = 8192;
    let bus = Arc::new(FlatBus::new(1 << 20));
    sums(&bus, false);
    let group = Group::new();
    group.set_jit(JitConfig {
        quick: 0,
        threshold: THRESHOLD,
        cache: 1 << 20,
        synchronous: true,
        ..JitConfig::default()
    });
    let mut v = bare_vcpu(&group, bus.clone());
    paged(&mut v, &bus, &[(STACK, 0xc_0000)]);
    v.hot().regs[3] = STACK - 8;
    // Until it is hot, until it has been left often, and not so many again.
    run(&mut v, FIRST, THRESHOLD.into());
    run(&mut v, FIRST, u64::from(THRESHOLD / 2));
    let regions = group.jit_counters().expect("a compiler").regions;
    let side = v.counters().side;
    run(&mut v, FIRST, 1000);
    assert!(regions == 2 && v.counters().side == side, "{regions} regions, {:?}", v.counters());
}

/// An object that lies in two pages that follow one another on the host: the check fails, and is gone on from, until that is too often.
#[test]
fn what_goes_on_over_an_end_all_the_time_is_made_differently() {
    let bus = Arc::new(FlatBus::new(1 << 20));
    sums(&bus, false);
    let group = group();
    let mut v = bare_vcpu(&group, bus);
    v.hot().regs[3] = STACK - 8;
    let mut made = |rounds| {
        run(&mut v, FIRST, rounds);
        (group.jit_counters().expect("a compiler").regions, v.counters().side)
    };
    assert_eq!(made(10_000), (1, 0));
    assert_eq!(made(10_000), (2, 1));
    assert_eq!(made(40_000), (2, 1));
}

/// Objects that lie in two pages, of which the second one lies behind the first on the host, or somewhere else.
#[test]
fn what_reaches_into_the_next_page_leaves_only_if_that_lies_elsewhere() {
    const ROUNDS: u64 = 400;
    for (elsewhere, store) in [(false, false), (false, true), (true, false), (true, true)] {
        let bus = Arc::new(FlatBus::new(1 << 20));
        sums(&bus, store);
        let at = if elsewhere { 0xc_0000 } else { STACK };
        let poke = |pa: u64, v: u64| assert!(bus.poke(pa, &v.to_le_bytes()));
        poke(STACK - 8, 5);
        [(STACK, 900), (0xc_0000, 700)].into_iter().for_each(|(page, v)| poke(page + 8, v));
        let mut v = bare_vcpu(&group(), bus.clone());
        paged(&mut v, &bus, &[(STACK, at)]);
        (v.hot().regs[0], v.hot().regs[3]) = (0, STACK - 8);
        run(&mut v, FIRST, ROUNDS);
        let first = if store { 5 + (2..=ROUNDS).sum::<u64>() } else { 5 * ROUNDS };
        let second = ROUNDS * if elsewhere { 700 } else { 900 };
        assert_eq!(v.hot().regs[0], first + second, "elsewhere: {elsewhere}, stores: {store}");
        let n = v.counters();
        assert!(n.entered > 0 && elsewhere == (n.side > ROUNDS / 2), "elsewhere: {elsewhere}, stores: {store}: {n:?}");
        let mut last = [0; 8];
        assert!(!store || bus.peek(at + 16, &mut last) && u64::from_le_bytes(last) == 1);
    }
}

/// A check that covers a word behind its page which is not read: that page is not even looked for, as the accessed bit of its entry shows.
#[test]
fn the_next_page_is_not_walked_for_what_is_not_touched() {
    const ROUNDS: u64 = 400;
    /// Of the page at STACK, in the tables that [`paged`] makes.
    const ENTRY: u64 = 0xf_3000 + 8 * (STACK >> 12);
    let bus = Arc::new(FlatBus::new(1 << 20));
    put(&bus, FIRST, |a| {
        let [mut top, mut end] = [(); 2].map(|()| a.create_label());
        a.set_label(&mut top).unwrap();
        a.cmp(qword_ptr(rbx), 0).unwrap();
        a.je(end).unwrap();
        a.add(rax, qword_ptr(rbx + 16)).unwrap();
        a.set_label(&mut end).unwrap();
        a.dec(rcx).unwrap();
        a.jne(top).unwrap();
        a.ud2().unwrap();
        vec![]
    });
    let mut v = bare_vcpu(&group(), bus.clone());
    paged(&mut v, &bus, &[]);
    // (Inside a page, until both ways of the branch have been gone and the loop is hot.)
    for (value, rounds) in [(1u64, 4), (0, u64::from(HOT))] {
        assert!(bus.poke(OTHER, &value.to_le_bytes()));
        v.hot().regs[3] = OTHER;
        run(&mut v, FIRST, rounds);
    }
    let accessed = || {
        let mut entry = [0; 1];
        assert!(bus.peek(ENTRY, &mut entry));
        entry[0] & 0x20 != 0
    };
    // (The stack is not used: nothing is pushed.)
    v.hot().regs[3] = STACK - 8;
    let side = v.counters().side;
    run(&mut v, FIRST, ROUNDS);
    let left = v.counters().side - side;
    assert!(left > ROUNDS / 2, "the check does not cover both words: {:?}", v.counters());
    assert!(!accessed(), "walked for a word that is not read");
    assert!(bus.poke(STACK - 8, &1u64.to_le_bytes()));
    run(&mut v, FIRST, 1);
    assert!(accessed());
}

/// Loops of as many instructions, in one block and in short ones: what is unrolled is compiled as one.
#[test]
fn a_region_of_long_blocks_may_be_longer() {
    for (count, length, one) in [(300, 1, false), (600, 600, true)] {
        let bus = Arc::new(FlatBus::new(1 << 20));
        put(&bus, FIRST, |a| {
            let mut top = a.create_label();
            a.set_label(&mut top).unwrap();
            for k in 0..count {
                a.inc(eax).unwrap();
                // (To the next instruction, which begins a block.)
                if k % length == 0 {
                    let mut next = a.create_label();
                    a.jo(next).unwrap();
                    a.set_label(&mut next).unwrap();
                    a.zero_bytes().unwrap();
                }
            }
            a.dec(rcx).unwrap();
            a.jne(top).unwrap();
            a.ud2().unwrap();
            vec![]
        });
        let group = group();
        let mut v = bare_vcpu(&group, bus);
        v.hot().regs[0] = 0;
        run(&mut v, FIRST, 200);
        assert_eq!(v.hot().regs[0], 200 * count);
        let regions = group.jit_counters().expect("a compiler").regions;
        assert!(regions > 0 && one == (regions == 1), "blocks of {length}: {regions} regions");
    }
}

/// Pages that have the same place in the first level, accessed in turn.
#[test]
fn two_pages_of_one_place_stay_known_and_a_third_is_found() {
    const ROUNDS: u64 = 1000;
    /// Between pages with the same place; the other place is half as far away.
    const SAME: u64 = 128 << 20;
    for (n, far, most) in [(2, SAME, 100), (2, SAME / 2, 100), (3, SAME, 4 * ROUNDS)] {
        let bus = Arc::new(FlatBus::new(3 * SAME as usize));
        put(&bus, FIRST, |a| {
            let mut top = a.create_label();
            a.set_label(&mut top).unwrap();
            a.mov(rdx, rbx).unwrap();
            for _ in 0..n {
                a.add(dword_ptr(rdx), ecx).unwrap();
                a.add(rdx, far as i32).unwrap();
            }
            a.dec(rcx).unwrap();
            a.jne(top).unwrap();
            a.ud2().unwrap();
            vec![]
        });
        let mut v = bare_vcpu(&group(), bus.clone());
        v.hot().regs[3] = STACK;
        let before = v.counters().misses;
        run(&mut v, FIRST, ROUNDS);
        let c = v.counters();
        assert!(c.entered > 0 && c.misses - before <= most && c.side < 10, "{n} pages, {far:#x} apart: {c:?}");
        for k in 0..n {
            let mut sum = [0; 4];
            assert!(bus.peek(STACK + k * far, &mut sum));
            assert_eq!(u64::from(u32::from_le_bytes(sum)), ROUNDS * (ROUNDS + 1) / 2);
        }
    }
}
