//! Port I/O permissions, INS and OUTS, MSRs, CPUID, RDTSC, UMIP.
use crate::machine::*;
use iced_x86::code_asm::*;
use target_i386::{reg::*, sys::cpuid::CpuidTable};

/// A TSS whose I/O map allows port 0x60 only.
fn mapped() -> Machine {
    let mut m = Machine::protected();
    m.cpu.state().tr.limit = 0x68 + 0x20;
    m.put(TSS + 0x68, &[0xff; 0x21]);
    m.put(TSS + 0x68 + 0x60 / 8, &[0xfe]);
    m.ring3();
    m
}
#[test]
fn io_map() {
    let mut m = mapped();
    m.run(|a| {
        a.in_(al, 0x60)?;
        a.out(0x60, al)?;
        a.int(0x80)
    });
    assert_eq!((m.vector(), m.reg(RAX)), (Some(0x80), 0xff));
    mapped().faults(13, Some(0), 0, |a| a.in_(al, 0x61));
    mapped().faults(13, Some(0), 0, |a| a.in_(ax, 0x60));
    mapped().faults(13, Some(0), 0, |a| a.in_(al, 0x5f));
    // Beyond the limit of the TSS.
    let mut m = mapped();
    m.set_reg(RDX, 0x100);
    m.faults(13, Some(0), 0, |a| a.out(dx, al));
    // IOPL 3 asks no map.
    let mut m = mapped();
    m.set_flags(0x3002);
    m.run(|a| {
        a.in_(al, 0x61)?;
        a.int(0x80)
    });
    assert_eq!(m.vector(), Some(0x80));
}
#[test]
fn string_io() {
    let mut m = Machine::protected();
    m.set_reg(RCX, 3);
    m.set_reg(RDI, 0x9000);
    m.set_reg(RSI, 0x9100);
    m.set_reg(RDX, 0x60);
    m.run(|a| {
        a.rep().insw()?;
        a.mov(ecx, 2)?;
        a.rep().outsd()?;
        a.insb()?;
        a.hlt()
    });
    assert_eq!((m.get32(0x9000), m.get32(0x9004)), (0xffff_ffff, 0x00ff_ffff));
    assert_eq!([RCX, RSI, RDI].map(|r| m.reg(r)), [0, 0x9108, 0x9007]);
    // Downwards, and a fault in the middle is exact.
    let mut m = Machine::long();
    m.put64(TABLES + 0x3000 + 0x8f * 8, 0);
    m.set_reg(RCX, 10);
    m.set_reg(RDI, 0x9_0004);
    m.set_reg(RDX, 0x60);
    m.faults(14, Some(2), 1, |a| {
        a.std()?;
        a.rep().insd()
    });
    assert_eq!([RCX, RDI].map(|r| m.reg(r)), [8, 0x8_fffc]);
}
#[test]
fn long_string_io() {
    // Over pages, from an odd address: all of it, and not a byte more.
    let mut m = Machine::protected();
    m.set_reg(RCX, 3000);
    m.set_reg(RDI, 0x9_0ff1);
    m.set_reg(RDX, 0x60);
    m.put(0x9_0ff0, &vec![0; 6002]);
    m.run(|a| {
        a.rep().insw()?;
        a.hlt()
    });
    let end = 0x9_0ff1 + 6000;
    assert_eq!([RCX, RDI].map(|r| m.reg(r)), [0, end]);
    let bytes: Vec<u8> = (0..6002).map(|n| m.get32(0x9_0ff0 + n) as u8).collect();
    assert!(bytes[0] == 0 && bytes[1..6001].iter().all(|b| *b == 0xff) && bytes[6001] == 0);
    // A page is not there: all that lies before it has been read.
    let mut m = Machine::long();
    m.put64(TABLES + 0x3000 + 0x92 * 8, 0);
    m.set_reg(RCX, 5000);
    m.set_reg(RDI, 0x9_0804);
    m.set_reg(RDX, 0x60);
    m.faults(14, Some(2), 0, |a| a.rep().insd());
    assert_eq!([RCX, RDI].map(|r| m.reg(r)), [5000 - 0x17fc / 4, 0x9_2000]);
    // Offsets of 16 bits wrap.
    let mut m = Machine::protected();
    m.set_reg(RCX, 0xabcd_0008);
    m.set_reg(RSI, 0x1234_fff8);
    m.set_reg(RDX, 0x60);
    m.run(|a| {
        a.db(&[0x67, 0xf3, 0x6e])?; // REP OUTSB by SI and CX
        a.hlt()
    });
    assert_eq!([RCX, RSI].map(|r| m.reg(r)), [0xabcd_0000, 0x1234_0000]);
}
fn wrmsr(m: &mut Machine, msr: u32, v: u64) -> bool {
    m.run(|a| {
        a.mov(ecx, msr)?;
        a.mov(eax, v as u32)?;
        a.mov(edx, (v >> 32) as u32)?;
        a.wrmsr()?;
        a.int(0x80)
    });
    m.vector() == Some(0x80)
}
fn rdmsr(m: &mut Machine, msr: u32) -> Option<u64> {
    m.run(|a| {
        a.mov(ecx, msr)?;
        a.rdmsr()?;
        a.int(0x80)
    });
    (m.vector() == Some(0x80)).then(|| m.reg(RDX) << 32 | m.reg(RAX))
}
#[test]
fn msrs_hold_and_refuse() {
    let mut m = Machine::long();
    for (msr, v) in [
        (0x174, 0x10),
        (0x175, 0xffff_8000_0000_1234),
        (0x277, 0x0007_0406_0007_0406),
        (0x200, 0xc000_0006),
        (0x201, 0xff_c000_0800),
        (0x250, 0x0606_0606_0606_0606),
        (0x2ff, 0xc06),
        (0x1a0, 1),
        (0x400, 0xffff),
        (0xc000_0082, 0xffff_ffff_8100_0000),
        (0xc000_0084, 0x4_7700),
        (0xc000_0102, 0x1234),
        (0xc000_0103, 5),
    ] {
        assert!(wrmsr(&mut m, msr, v), "{msr:#x}");
        assert_eq!(rdmsr(&mut m, msr), Some(v), "{msr:#x}");
    }
    for (msr, v) in [
        (0x277, 2),
        (0x200, 7),
        (0x201, 1 << 50),
        (0x2ff, 0x100),
        (0xc000_0082, 0x8000_0000_0000),
        (0xc000_0084, 1 << 32),
        (0x401, 1),
        (0x1d9, 1),
        (0xfe, 0),
        (0x1234_5678, 0),
        (0x830, 0),
    ] {
        assert!(!wrmsr(&mut m, msr, v), "{msr:#x}");
        assert_eq!(m.frame::<1>(), [0]);
    }
    assert_eq!(rdmsr(&mut m, 0x1234_5678), None);
    assert_eq!(rdmsr(&mut m, 0xfe), Some(0x508));
    assert_eq!(rdmsr(&mut m, 0x179), Some(0x100_010a));
    assert_eq!(rdmsr(&mut m, 0x1b), Some(0xfee0_0900));
    assert_eq!((rdmsr(&mut m, 0x802), rdmsr(&mut m, 0x803)), (Some(7), None));
    assert!(wrmsr(&mut m, 0x80b, 0) && !wrmsr(&mut m, 0x80c, 0));
}
#[test]
fn time_stamp_counter() {
    let mut m = Machine::protected();
    m.run(|a| {
        a.mov(ecx, 0x10)?;
        a.mov(eax, 0x1000)?;
        a.mov(edx, 5)?;
        a.wrmsr()?;
        a.rdtsc()?;
        a.mov(esi, eax)?;
        a.rdtscp()?;
        a.hlt()
    });
    assert_eq!(m.reg(RDX), 5);
    assert!(m.reg(RSI) >= 0x1000 && m.reg(RAX) > m.reg(RSI));
    m.ring3();
    m.cpu.state().cr4 |= 4;
    m.faults(13, Some(0), 0, |a| a.rdtsc());
}
#[test]
fn cpuid_and_its_running_bits() {
    let mut m = Machine::protected();
    m.run(|a| {
        a.xor(eax, eax)?;
        a.cpuid()?;
        a.mov(esi, eax)?;
        a.mov(edi, ebx)?;
        a.mov(eax, 1)?;
        a.cpuid()?;
        a.hlt()
    });
    assert_eq!((m.reg(RSI), m.reg(RDI)), (7, 0x756e_6547));
    assert_eq!((m.reg(RAX), m.reg(RDX) >> 9 & 1), (0x60fb1, 1));
}
#[test]
fn umip() {
    let pieces: &[Piece] =
        &[|a| a.sgdt(ptr(0x9000)), |a| a.sidt(ptr(0x9000)), |a| a.sldt(eax), |a| a.str(eax), |a| a.smsw(eax)];
    for &f in pieces {
        let mut m = Machine::protected();
        m.ring3();
        m.run(|a| {
            f(a)?;
            a.int(0x80)
        });
        assert_eq!(m.vector(), Some(0x80));
        m.ring3();
        m.cpu.state().cr4 |= 1 << 11;
        m.faults(13, Some(0), 0, f);
    }
}
#[test]
fn fsgsbase_needs_cr4() {
    let mut m = Machine::long();
    m.set_reg(RAX, 0x1234_5678_9abc);
    m.faults(6, None, 0, |a| a.wrfsbase(rax));
    m.cpu.state().cr4 |= 1 << 16;
    m.run(|a| {
        a.wrgsbase(rax)?;
        a.rdgsbase(rbx)?;
        a.rdgsbase(ecx)?;
        a.hlt()
    });
    assert_eq!((m.reg(RBX), m.reg(RCX)), (0x1234_5678_9abc, 0x5678_9abc));
    m.set_reg(RAX, 0x8000_0000_0000);
    m.faults(13, Some(0), 0, |a| a.wrfsbase(rax));
}
#[test]
fn a_base_written_by_msr_is_used_at_once() {
    for (msr, is_fs) in [(0xc000_0100u32, true), (0xc000_0101, false)] {
        let mut m = Machine::long();
        m.put64(0x9010, 0x1122_3344);
        m.put64(0x9f80, 0x5566_7788);
        m.run(|a| {
            a.mov(ecx, msr)?;
            a.mov(eax, 0x9000u32)?;
            a.xor(edx, edx)?;
            a.wrmsr()?;
            a.mov(rbx, 0x10u64)?;
            a.mov(rsi, -0x80i64)?;
            if is_fs {
                a.mov(rax, qword_ptr(rbx).fs())?;
                a.mov(rdx, qword_ptr(0x1010u64 - 0x1000).fs())?;
                a.lea(rdi, qword_ptr(rsi))?;
                a.mov(rsi, qword_ptr(rsi + 0x1000).fs())?;
            } else {
                a.mov(rax, qword_ptr(rbx).gs())?;
                a.mov(rdx, qword_ptr(0x1010u64 - 0x1000).gs())?;
                a.lea(rdi, qword_ptr(rsi))?;
                a.mov(rsi, qword_ptr(rsi + 0x1000).gs())?;
            }
            a.int(0x80)
        });
        assert_eq!(m.vector(), Some(0x80));
        assert_eq!([RAX, RDX, RSI].map(|r| m.reg(r)), [0x1122_3344, 0x1122_3344, 0x5566_7788]);
    }
}
#[test]
fn a_return_to_user_code_keeps_the_base_of_a_null_fs() {
    let mut m = Machine::long();
    m.put64(0x9010, 0x1122_3344);
    {
        let (hot, s) = m.cpu.parts();
        (s.segs[FS].sel, s.segs[FS].base) = (0, 0x9000);
        s.sync(hot);
    }
    m.run(|a| {
        let mut user = a.create_label();
        a.lea(rcx, ptr(user))?;
        a.push(i32::from(DATA3))?;
        a.mov(rax, STACK3)?;
        a.push(rax)?;
        a.pushfq()?;
        a.push(i32::from(CODE3L))?;
        a.push(rcx)?;
        a.iretq()?;
        a.set_label(&mut user)?;
        a.mov(rax, qword_ptr(0x10).fs())?;
        a.int(0x80)
    });
    assert_eq!((m.vector(), m.reg(RAX)), (Some(0x80), 0x1122_3344));
}
#[test]
fn what_cpuid_lacks_is_undefined() {
    let bare = || {
        let mut m = Machine::with(CpuidTable::default());
        m.tables();
        m.flat32();
        m
    };
    let pieces: &[Piece] = &[
        |a| a.rdmsr(),
        |a| a.wrmsr(),
        |a| a.rdtsc(),
        |a| a.rdtscp(),
        |a| a.sysenter(),
        |a| a.sysexit(),
        |a| a.syscall(),
        |a| a.monitor(),
        |a| a.mwait(),
        |a| a.stac(),
        |a| a.xgetbv(),
        |a| a.rdpid(eax),
    ];
    for &f in pieces {
        bare().faults(6, None, 0, f);
    }
}
