//! The local APIC register by register.

use super::access::reg;
use super::*;

fn on() -> ApicRegs {
    let mut a = ApicRegs::power_on(2, 0x14, true);
    assert_eq!(a.write(0xf0, 0x1ff, 0), Effect::default());
    a
}
fn rd(a: &mut ApicRegs, off: u64) -> u32 {
    a.read(off, 0).0
}
fn wr(a: &mut ApicRegs, off: u64, v: u32) -> Effect {
    a.write(off, v, 0)
}
fn fixed(vector: u8, level: bool) -> Message {
    Message { vector, mode: mode::FIXED, level, to: Target::Physical(2) }
}
fn x2() -> ApicRegs {
    let mut a = ApicRegs::power_on(0x25, 0x14, false);
    assert_eq!(a.set_base(DEFAULT_ADDRESS | BASE_EN | BASE_EXTD), Ok(Effect::default()));
    assert_eq!(a.write_msr(reg::SVR, 0x1ff, 0), Ok(Effect::default()));
    a
}

#[test]
fn reset_values() {
    let mut a = ApicRegs::power_on(2, 0x14, false);
    let got = [0x20, 0x30, 0x80, 0xd0, 0xe0, 0xf0, 0x320, 0x350, 0x380].map(|o| rd(&mut a, o));
    assert_eq!(got, [0x0200_0000, 0x5_0014, 0, 0, u32::MAX, 0xff, 0x1_0000, 0x1_0000, 0]);
    assert_eq!(a.base(), DEFAULT_ADDRESS | BASE_EN);
}

#[test]
fn priorities_decide_and_eoi_ends_the_highest() {
    let mut a = on();
    for v in [0x31, 0x45, 0x4a] {
        assert_eq!(a.deliver(fixed(v, false)), Effect::default());
    }
    assert_eq!(a.acknowledge(), Some(0x4a));
    assert_eq!((a.pending(), a.ppr()), (None, 0x40)); // 0x45 is of the same class
    assert_eq!(rd(&mut a, 0x120), 1 << 0xa);
    assert_eq!(wr(&mut a, 0xb0, 0), Effect::default()); // edge: no broadcast
    assert_eq!(a.acknowledge(), Some(0x45));
    let _ = wr(&mut a, 0xb0, 0);
    a.set_tpr(0x30);
    assert_eq!(a.pending(), None);
    a.set_tpr(0x2f);
    assert_eq!((a.pending(), a.apr()), (Some(0x31), 0x30));
}

#[test]
fn level_vector_is_broadcast_at_eoi() {
    let mut a = on();
    let _ = a.deliver(fixed(0x61, true));
    assert_eq!(rd(&mut a, 0x1b0), 1 << 1);
    assert_eq!(a.acknowledge(), Some(0x61));
    assert_eq!(wr(&mut a, 0xb0, 0).eoi, Some(0x61));
    let _ = a.deliver(fixed(0x61, false));
    let _ = a.acknowledge();
    assert_eq!(wr(&mut a, 0xb0, 0).eoi, None);
}

#[test]
fn software_disabled_takes_no_vectors_and_masks_lvt() {
    let mut a = on();
    let _ = wr(&mut a, 0x320, 0x40);
    let _ = wr(&mut a, 0xf0, 0xff);
    assert_eq!(rd(&mut a, 0x320), 0x1_0040);
    let _ = wr(&mut a, 0x320, 0x40);
    assert_eq!(rd(&mut a, 0x320), 0x1_0040);
    let _ = a.deliver(fixed(0x50, false));
    assert_eq!(rd(&mut a, 0x220), 0);
    let nmi = Message { mode: mode::NMI, ..fixed(0, false) };
    assert_eq!(a.deliver(nmi).signal, Some(Signal::Nmi));
}

#[test]
fn icr_composes_messages() {
    let mut a = on();
    let _ = wr(&mut a, 0x310, 0x0300_0000);
    let sent = |to, vector, mode| Some(Message { vector, mode, level: false, to });
    assert_eq!(wr(&mut a, 0x300, 0x4041).message, sent(Target::Physical(3), 0x41, 0));
    assert_eq!(wr(&mut a, 0x300, 0x4941).message, sent(Target::Logical(3), 0x41, 1));
    assert_eq!(wr(&mut a, 0x300, 0x4_4041).message, sent(Target::Own, 0x41, 0));
    assert_eq!(wr(&mut a, 0x300, 0x8_4041).message, sent(Target::All, 0x41, 0));
    assert_eq!(wr(&mut a, 0x300, 0xc_4500).message, sent(Target::Others, 0, mode::INIT));
    assert_eq!(wr(&mut a, 0x300, 0xc_8500).message, None); // INIT de-assert
    assert_eq!(wr(&mut a, 0x300, 0xc_4610).message, sent(Target::Others, 0x10, mode::SIPI));
    let _ = wr(&mut a, 0x310, 0xff00_0000);
    assert_eq!(wr(&mut a, 0x300, 0x4400).message, sent(Target::All, 0, mode::NMI));
    assert_eq!(rd(&mut a, 0x300), 0x4400); // idle
}

#[test]
fn illegal_vectors_and_registers_go_to_esr() {
    let mut a = on();
    let _ = wr(&mut a, 0x370, 0x55);
    assert_eq!(wr(&mut a, 0x300, 0x4005).message, None);
    let _ = a.deliver(fixed(3, false));
    assert_eq!(rd(&mut a, 0x280), 0); // until written
    let _ = wr(&mut a, 0x280, 0);
    assert_eq!(rd(&mut a, 0x280), 0x60);
    assert_eq!(rd(&mut a, 0x3a0), 0);
    let _ = wr(&mut a, 0x280, 0);
    assert_eq!(rd(&mut a, 0x280), 0x80);
    assert_eq!(a.pending(), Some(0x55));
}

#[test]
fn logical_destinations_flat_and_cluster() {
    let mut a = on();
    let _ = wr(&mut a, 0xd0, 0x2400_0000);
    let hit = |a: &ApicRegs, d| a.is_target(Target::Logical(d), false);
    assert_eq!((hit(&a, 0x04), hit(&a, 0x20), hit(&a, 0x41)), (true, true, false));
    let _ = wr(&mut a, 0xe0, 0);
    assert_eq!((hit(&a, 0x24), hit(&a, 0x14), hit(&a, 0x28), hit(&a, 0xf4)), (true, false, false, true));
    assert!(a.is_target(Target::Physical(2), false) && !a.is_target(Target::Physical(3), false));
    assert!(!a.is_target(Target::Others, true) && a.is_target(Target::Own, true) && a.is_target(Target::All, true));
}

#[test]
fn timer_one_shot_and_periodic() {
    let mut a = on();
    let _ = wr(&mut a, 0x320, 0x40);
    let _ = wr(&mut a, 0x3e0, 0x3); // divide by 16
    assert!(a.write(0x380, 100, 1000).timer);
    assert_eq!(a.timer_deadline(1000), Some(1000 + 1600));
    assert_eq!(a.read(0x390, 1000 + 160).0, 90);
    assert_eq!(a.timer_expired(2600), Effect { timer: true, ..Effect::default() });
    assert_eq!((a.acknowledge(), a.timer_deadline(2600), a.read(0x390, 2600).0), (Some(0x40), None, 0));
    let _ = wr(&mut a, 0xb0, 0);
    let _ = wr(&mut a, 0x320, 0x2_0040);
    let _ = wr(&mut a, 0x3e0, 0xb); // by 1
    let _ = a.write(0x380, 500, 10_000);
    let _ = a.timer_expired(10_500);
    assert_eq!((a.pending(), a.timer_deadline(10_500)), (Some(0x40), Some(11_000)));
    let _ = a.write(0x380, 0, 10_600);
    assert_eq!(a.timer_deadline(10_600), None);
}

#[test]
fn masked_timer_counts_without_interrupt() {
    let mut a = on();
    let _ = a.write(0x380, 10, 0);
    let _ = a.timer_expired(20);
    assert_eq!((a.pending(), a.timer_deadline(20)), (None, None));
}

#[test]
fn tsc_deadline_mode() {
    let mut a = on();
    let _ = a.set_tsc_deadline(77, 5);
    assert_eq!(a.tsc_deadline(), 0); // other mode: ignored
    let _ = wr(&mut a, 0x320, 0x4_0040);
    let _ = a.set_tsc_deadline(77, 5000);
    assert_eq!((a.tsc_deadline(), a.timer_deadline(0)), (77, Some(5000)));
    let _ = a.write(0x380, 10, 0); // no effect
    assert_eq!(a.read(0x380, 0).0, 0);
    let _ = a.timer_expired(5000);
    assert_eq!((a.tsc_deadline(), a.pending()), (0, Some(0x40)));
    let _ = a.set_tsc_deadline(99, 9000);
    let _ = wr(&mut a, 0x320, 0x40);
    assert_eq!(a.timer_deadline(0), None);
}

#[test]
fn extint_passes_through_lint0() {
    let mut a = on();
    let _ = a.set_lint(0, true);
    assert!(!a.pic_pending());
    let _ = wr(&mut a, 0x350, 0x700);
    assert!(a.pic_pending());
    let _ = a.set_lint(0, false);
    assert!(!a.pic_pending());
    let mut off = ApicRegs::power_on(0, 0x14, true);
    assert!(off.set_base(DEFAULT_ADDRESS | BASE_BSP).is_ok());
    let _ = off.set_lint(0, true);
    assert!(off.pic_pending());
    assert_eq!(off.set_lint(1, true).signal, Some(Signal::Nmi));
}

#[test]
fn lint1_nmi_and_fixed_level() {
    let mut a = on();
    let _ = wr(&mut a, 0x360, 0x400);
    assert_eq!(a.set_lint(1, true).signal, Some(Signal::Nmi));
    assert_eq!(a.set_lint(1, true).signal, None);
    let _ = wr(&mut a, 0x350, 0x8033);
    let _ = a.set_lint(0, true);
    assert_eq!((a.acknowledge(), rd(&mut a, 0x350)), (Some(0x33), 0xc033));
    let _ = wr(&mut a, 0xb0, 0);
    assert_eq!(a.pending(), Some(0x33)); // still asserted
    let _ = a.set_lint(0, false);
    assert_eq!(a.pending(), None);
}

#[test]
fn base_transitions() {
    let mut a = on();
    assert_eq!(a.set_base(DEFAULT_ADDRESS | BASE_EXTD), Err(Gp));
    assert_eq!(a.set_base(DEFAULT_ADDRESS | BASE_EN | 1), Err(Gp));
    assert!(a.set_base(DEFAULT_ADDRESS | BASE_EN | BASE_EXTD).is_ok());
    assert_eq!(a.set_base(DEFAULT_ADDRESS | BASE_EN), Err(Gp));
    assert!(a.set_base(DEFAULT_ADDRESS).is_ok());
    assert_eq!(a.set_base(DEFAULT_ADDRESS | BASE_EN | BASE_EXTD), Err(Gp));
    assert!(a.set_base(DEFAULT_ADDRESS | BASE_EN).is_ok());
    assert_eq!(rd(&mut a, 0xf0), 0xff);
}

#[test]
fn x2apic_registers() {
    let mut a = x2();
    assert_eq!((a.read_msr(reg::ID, 0), a.read_msr(reg::LDR, 0)), (Ok(0x25), Ok(0x0002_0020)));
    assert_eq!(
        (a.read_msr(reg::DFR, 0), a.read_msr(reg::ICR_HIGH, 0), a.read_msr(reg::EOI, 0)),
        (Err(Gp), Err(Gp), Err(Gp))
    );
    assert_eq!(a.write_msr(reg::EOI, 1, 0), Err(Gp));
    assert_eq!(a.write_msr(reg::TPR, 0x100, 0), Err(Gp));
    assert_eq!(a.write_msr(reg::ID, 0, 0), Err(Gp));
    let e = a.write_msr(reg::ICR_LOW, 0x0000_0100_0000_4041, 0);
    assert_eq!(e.map(|e| e.message.map(|m| m.to)), Ok(Some(Target::Physical(0x100))));
    let e = a.write_msr(reg::SELF_IPI, 0x77, 0);
    assert_eq!(e.map(|e| e.message.map(|m| (m.to, m.vector))), Ok(Some((Target::Own, 0x77))));
    assert!(a.is_target(Target::Logical(0x0002_0030), false) && !a.is_target(Target::Logical(0x0001_0020), false));
    assert_eq!(a.read(0x20, 0).0, u32::MAX); // the page is gone
    assert_eq!(on().read_msr(reg::ID, 0), Err(Gp));
}

#[test]
fn init_keeps_base_and_id() {
    let mut a = on();
    let _ = wr(&mut a, 0x20, 0x0700_0000);
    let _ = a.deliver(fixed(0x40, false));
    a.init();
    assert_eq!(
        (rd(&mut a, 0x20), rd(&mut a, 0xf0), a.pending(), a.base() & BASE_BSP),
        (0x0700_0000, 0xff, None, BASE_BSP)
    );
}

#[test]
fn start_up_ipi_is_taken_once_after_init() {
    let sipi = Message { vector: 0x9f, mode: mode::SIPI, level: false, to: Target::All };
    let mut a = ApicRegs::power_on(1, 0x14, false);
    assert_eq!(a.take_sipi(), None);
    assert_eq!(a.deliver(sipi).signal, Some(Signal::Sipi));
    assert_eq!((a.take_sipi(), a.take_sipi()), (Some(0x9f), None));
    assert_eq!(a.deliver(sipi).signal, None);
    assert_eq!(a.take_sipi(), None); // running
    a.init();
    let _ = a.deliver(sipi);
    assert_eq!(a.take_sipi(), Some(0x9f));
    let mut bsp = ApicRegs::power_on(0, 0x14, true);
    let _ = bsp.deliver(sipi);
    assert_eq!(bsp.take_sipi(), None);
}

#[test]
fn a_start_up_ipi_outlives_an_init_that_is_taken_late() {
    let message = |mode, vector| Message { vector, mode, level: false, to: Target::All };
    let (init, sipi) = (message(mode::INIT, 0), message(mode::SIPI, 0x10));
    let mut a = ApicRegs::power_on(1, 0x14, false);
    let _ = a.deliver(sipi);
    assert_eq!(a.take_sipi(), Some(0x10)); // runs
    assert_eq!(a.deliver(init).signal, Some(Signal::Init));
    assert_eq!(a.deliver(sipi).signal, Some(Signal::Sipi));
    let _ = a.deliver(message(mode::SIPI, 0x20));
    a.init();
    assert_eq!((a.take_sipi(), a.take_sipi()), (Some(0x10), None));
    // One from before the INIT does not.
    let _ = (a.deliver(init), a.deliver(sipi), a.deliver(init));
    a.init();
    assert_eq!(a.take_sipi(), None);
    let _ = a.deliver(sipi);
    assert_eq!(a.take_sipi(), Some(0x10));
}
