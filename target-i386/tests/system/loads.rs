//! Far pointer loads, and system instructions that need but a line each.
use crate::machine::*;
use accel::tcg::Slot;
use iced_x86::code_asm::*;
use target_i386::{
    reg::*,
    sys::cpuid::{ANY, CpuidTable},
};

type Load = fn(&mut CodeAssembler) -> Result<(), iced_x86::IcedError>;

#[test]
fn far_pointer_loads_take_offset_and_selector() {
    let loads: [(Load, usize); 5] = [
        (|a| a.lds(ecx, fword_ptr(0x9000)), DS),
        (|a| a.les(ecx, fword_ptr(0x9000)), ES),
        (|a| a.lss(ecx, fword_ptr(0x9000)), SS),
        (|a| a.lfs(ecx, fword_ptr(0x9000)), FS),
        (|a| a.lgs(ecx, fword_ptr(0x9000)), GS),
    ];
    for (load, segment) in loads {
        let mut m = Machine::protected();
        m.set_gdt(FREE, descriptor(0x1234, 0xf_ffff, 0x93));
        m.put32(0x9000, 0xcafe_f00d);
        m.put16(0x9004, FREE);
        m.run(|a| {
            load(a)?;
            a.hlt()
        });
        assert_eq!(m.reg(RCX), 0xcafe_f00d, "segment {segment}");
        let s = m.cpu.state();
        assert_eq!((s.segs[segment].sel, s.segs[segment].base), (FREE, 0x1234));
        // A bad selector changes neither register.
        let mut m = Machine::protected();
        m.put32(0x9000, 1);
        m.put16(0x9004, 0x7f0);
        m.set_reg(RCX, 7);
        m.faults(13, Some(0x7f0), 0, load);
        assert_eq!(m.reg(RCX), 7);
        assert_eq!(m.cpu.state().segs[segment].sel, DATA0);
    }
}
#[test]
fn far_pointer_loads_of_16_bits_in_real_mode() {
    let mut m = Machine::real();
    m.put16(0x600, 0xbeef);
    m.put16(0x602, 0x1234);
    m.assemble_bits(16, 0x500, 0x500, |a| {
        a.lds(cx, dword_ptr(0x600))?;
        a.hlt()
    });
    m.go(0x500);
    assert_eq!(m.reg(RCX) & 0xffff, 0xbeef);
    assert_eq!(m.cpu.state().segs[DS].base, 0x1_2340);
}
#[test]
fn what_user_code_may_not() {
    let forbidden: [Load; 4] = [|a| a.invd(), |a| a.rdpmc(), |a| a.outsb(), |a| a.outsw()];
    for f in forbidden {
        let mut m = Machine::protected();
        m.ring3();
        m.faults(13, Some(0), 0, f);
    }
}
#[test]
fn outs_moves_on_by_its_width() {
    let widths: [(Load, u64); 2] = [(|a| a.outsb(), 1), (|a| a.outsw(), 2)];
    for (f, by) in widths {
        let mut m = Machine::protected();
        let set: [(Slot, u64); 2] = [(RSI, 0x9000), (RDX, 0x60)];
        for (r, v) in set {
            m.set_reg(r, v);
        }
        m.run(|a| {
            f(a)?;
            a.hlt()
        });
        assert_eq!(m.reg(RSI), 0x9000 + by);
    }
}
#[test]
fn invd_runs_in_ring_0() {
    let mut m = Machine::protected();
    m.run(|a| {
        a.invd()?;
        a.hlt()
    });
    assert_eq!(m.vector(), None);
}
#[test]
fn rdfsbase_and_rdpid() {
    let table = CpuidTable::new([
        (0, ANY, [7, 0, 0, 0]),
        (7, 0, [0, 1, 1 << 22, 0]),
        (0x8000_0000, ANY, [0x8000_0001, 0, 0, 0]),
    ]);
    let mut m = Machine::long_with(table);
    let (hot, s) = m.cpu.parts();
    s.cr4 |= 1 << 16;
    s.segs[FS].base = 0x1234_5678_9abc;
    s.msrs.tsc_aux = 0x77;
    s.sync(hot);
    m.run(|a| {
        a.rdfsbase(rbx)?;
        a.rdfsbase(ecx)?;
        a.rdpid(rdx)?;
        a.hlt()
    });
    assert_eq!([RBX, RCX, RDX].map(|r| m.reg(r)), [0x1234_5678_9abc, 0x5678_9abc, 0x77]);
    // Without the feature there is no such instruction.
    let mut m = Machine::long();
    m.faults(6, None, 0, |a| a.rdpid(rdx));
}
