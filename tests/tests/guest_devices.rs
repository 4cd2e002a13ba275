//! Devices as guest code sees them: what a monitor or a test program outside cannot reach.

use iced_x86::{IcedError, code_asm::*};
use tests::rom;

/// Where interrupt 13's handler is in an image.
const HANDLER: u16 = 0x4000;

/// Segments and a stack.
fn start(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.cli()?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.mov(ss, ax)?;
    a.mov(sp, 0x7000)
}

/// Both 8259s with vectors 08H and 70H; nothing but the cascade and IRQ 13 gets through. The local APIC, which masks LINT0 after
/// reset, is switched off.
fn interrupt_controllers(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(ecx, 0x1bu32)?;
    a.rdmsr()?;
    a.and(eax, !0x800)?;
    a.wrmsr()?;
    for (port, val) in [
        (0x20u32, 0x11u32),
        (0x21, 8),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xfb),
        (0xa0, 0x11),
        (0xa1, 0x70),
        (0xa1, 2),
        (0xa1, 1),
        (0xa1, 0xdf),
    ] {
        a.mov(al, val)?;
        a.out(port, al)?;
    }
    a.mov(word_ptr(0x75 * 4), u32::from(HANDLER))?;
    a.mov(word_ptr(0x75 * 4 + 2), 0xf000u32)
}

/// An x87 division by zero, then WAIT: the error comes as interrupt 13 before WAIT, the handler exchanges it for IGNNE#.
#[test]
fn x87_errors_come_as_irq_13_until_the_handler_writes_port_f0() {
    let main = |a: &mut CodeAssembler| {
        start(a)?;
        interrupt_controllers(a)?;
        a.sti()?;
        a.fninit()?;
        a.mov(word_ptr(0x600), 0x37bu32)?; // ZE unmasked
        for round in [b'1', b'2'] {
            a.fldcw(word_ptr(0x600))?;
            a.fld1()?;
            a.fldz()?;
            a.fdivp(st1, st0)?;
            rom::say(a, round)?;
            a.wait()?;
            rom::say(a, b'E')?;
            // Nothing pends any more.
            a.wait()?;
        }
        // With CR0.NE it is an exception again, and IRQ 13 stays out of it.
        a.mov(word_ptr(0x10 * 4), u32::from(HANDLER + 0x100))?;
        a.mov(word_ptr(0x10 * 4 + 2), 0xf000u32)?;
        a.mov(eax, cr0)?;
        a.or(eax, 0x20)?;
        a.mov(cr0, eax)?;
        a.fld1()?;
        a.fldz()?;
        a.fdivp(st1, st0)?;
        a.wait()?;
        rom::end(a)
    };
    let irq = |a: &mut CodeAssembler| {
        a.push(bx)?;
        a.push(bp)?;
        a.mov(bp, sp)?;
        rom::say(a, b'I')?;
        a.fnstsw(ax)?;
        a.out(0xe9, al)?;
        // The instruction to return to.
        a.mov(bx, word_ptr(bp + 4))?;
        a.mov(al, byte_ptr(bx).cs())?;
        a.out(0xe9, al)?;
        a.out(0xf0, al)?;
        // IGNNE# lets instructions pass in spite of the error.
        a.fld1()?;
        a.fstp(st0)?;
        a.fnclex()?;
        a.mov(al, 0x20)?;
        a.out(0xa0, al)?;
        a.out(0x20, al)?;
        a.pop(bp)?;
        a.pop(bx)?;
        a.iret()
    };
    let exception = |a: &mut CodeAssembler| {
        rom::say(a, b'X')?;
        a.fnclex()?;
        a.iret()
    };
    let image = rom::image(&[(0, &main), (HANDLER, &irq), (HANDLER + 0x100, &exception)]);
    // FSW: ZE, ES and the busy bit; 9BH is WAIT.
    let said = rom::run(&image, &[]);
    let round = |n: u8, fsw: u8| [n, b'I', fsw, 0x9b, b'E'];
    assert_eq!(said, [&round(b'1', 0x84)[..], &round(b'2', 0x84), b"X"].concat());
}

/// A command of VMware's port; EAX, EBX, ECX, EDX after it go out.
fn backdoor(a: &mut CodeAssembler, ecx_: u32, ebx_: u32) -> Result<(), IcedError> {
    a.mov(eax, 0x564d_5868u32)?;
    a.mov(ebx, ebx_)?;
    a.mov(ecx, ecx_)?;
    a.mov(edx, 0x5658u32)?;
    a.in_(eax, dx)?;
    for r in [eax, ebx, ecx, edx] {
        a.mov(esi, r)?;
        a.mov(edi, eax)?;
        a.mov(eax, esi)?;
        for _ in 0..4 {
            a.out(0xe9, al)?;
            a.shr(eax, 8)?;
        }
        a.mov(eax, edi)?;
    }
    Ok(())
}

#[test]
fn guests_find_vmwares_port_and_mouse() {
    const COMMANDS: [(u32, u32); 8] =
        [(10, 0), (20, 0), (19, 0), (0x15, 0), (40, 0), (41, 0x4541_4552), (40, 0), (39, 1)];
    let main = |a: &mut CodeAssembler| {
        start(a)?;
        COMMANDS.into_iter().try_for_each(|(c, b)| backdoor(a, c, b))?;
        rom::end(a)
    };
    let image = rom::image(&[(0, &main)]);
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    let said = rom::run(&image, &["-m", "64", "-uuid", uuid]);
    let words: Vec<u32> = said.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
    let answers: Vec<&[u32]> = words.chunks_exact(4).collect();
    let port = 0x5658;
    assert_eq!(answers[0], [6, 0x564d_5868, 2, port]);
    assert_eq!(answers[1], [64 << 20, 0x1177, 20, port]);
    assert_eq!(answers[2], [0x3322_1100, 0x7766_5544, 0xbbaa_9988, 0xffee_ddcc]);
    assert_eq!(answers[3], [u32::MAX, 0, 0x15, port]);
    assert_eq!(answers[4][0], 0xffff_0000, "switched off");
    assert_eq!(answers[6][0], 1, "one word waits");
    assert_eq!(answers[7], [0x3442_554a, 1, 39, port]);
    // Without it the port reads as one that nobody answers.
    let said = rom::run(&image, &["-machine", "vmport=off"]);
    assert_eq!(said[..8], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
}
