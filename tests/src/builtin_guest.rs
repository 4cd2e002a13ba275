//! The built-in guest: a firmware image assembled here that says on the first serial port and on the screen what machine it runs
//! on, then powers it off. It needs nothing from outside, so that it runs where no packages can be fetched.
//! Source: Intel SDM vol. 2 CPUID; PCI 3.0 §3.2.2.3.2; Intel 231164 (8254); ACPI 6.5 §4.8.3; the fw_cfg interface.

use crate::builtin_screen as screen;
use crate::rom;
use iced_x86::{IcedError, code_asm::*};

const SIZE: usize = 64 << 10;
const SERIAL: u32 = 0x3f8;
/// The PM function of the chipset, its base register and switch, as firmware would set them.
const PM: u32 = 0x8000_0b00;
const PM_BASE: u32 = 0x600;
/// Scratch memory: data segment 0.
const BUFFER: u32 = 0x500;

/// Offset of the texts, behind the code.
const TEXTS: u32 = 0x8000;

/// What the guest prints last.
pub const FAREWELL: &str = "Powering off.";

struct Guest {
    a: CodeAssembler,
    puts: CodeLabel,
    putc: CodeLabel,
    hex: CodeLabel,
    texts: Vec<u8>,
}

impl Guest {
    fn say(&mut self, text: &str) -> Result<(), IcedError> {
        let at = TEXTS + self.texts.len() as u32;
        self.texts.extend(text.bytes().chain([0]));
        self.a.mov(si, at)?;
        self.a.call(self.puts)
    }

    /// Prints the low `digits` hexadecimal digits of EAX.
    fn number(&mut self, digits: u32) -> Result<(), IcedError> {
        self.a.mov(cx, digits)?;
        self.a.call(self.hex)
    }

    /// EAX = the configuration dword that EAX names.
    fn config(&mut self) -> Result<(), IcedError> {
        self.a.mov(dx, 0xcf8)?;
        self.a.out(dx, eax)?;
        self.a.mov(dx, 0xcfc)?;
        self.a.in_(eax, dx)
    }

    fn set_config(&mut self, address: u32, value: u32) -> Result<(), IcedError> {
        self.a.mov(dx, 0xcf8)?;
        self.a.mov(eax, address)?;
        self.a.out(dx, eax)?;
        self.a.mov(dx, 0xcfc)?;
        self.a.mov(eax, value)?;
        self.a.out(dx, eax)
    }

    fn cpuid(&mut self) -> Result<(), IcedError> {
        self.say("CPU      ")?;
        self.a.xor(eax, eax)?;
        self.a.cpuid()?;
        for (i, r) in [ebx, edx, ecx].into_iter().enumerate() {
            self.a.mov(dword_ptr(BUFFER + 4 * i as u32).es(), r)?;
        }
        self.a.mov(dword_ptr(BUFFER + 12).es(), 0)?;
        let (mut next, mut end) = (self.a.create_label(), self.a.create_label());
        self.a.mov(di, BUFFER)?;
        self.a.set_label(&mut next)?;
        self.a.mov(al, byte_ptr(di).es())?;
        self.a.test(al, al)?;
        self.a.je(end)?;
        self.a.call(self.putc)?;
        self.a.inc(di)?;
        self.a.jmp(next)?;
        self.a.set_label(&mut end)?;
        self.say(", signature ")?;
        self.a.mov(eax, 1)?;
        self.a.cpuid()?;
        self.a.push(ecx)?;
        self.a.push(edx)?;
        self.number(8)?;
        self.say(", features EDX ")?;
        self.a.pop(eax)?;
        self.number(8)?;
        self.say(" ECX ")?;
        self.a.pop(eax)?;
        self.number(8)
    }

    /// Bytes of RAM, from fw_cfg item 3.
    fn memory(&mut self) -> Result<(), IcedError> {
        self.say("\r\nMemory   ")?;
        self.a.mov(dx, 0x510)?;
        self.a.mov(ax, 3)?;
        self.a.out(dx, ax)?;
        self.a.mov(dx, 0x511)?;
        for i in 0..8u32 {
            self.a.in_(al, dx)?;
            self.a.mov(byte_ptr(BUFFER + i).es(), al)?;
        }
        for at in [4, 0] {
            self.a.mov(eax, dword_ptr(BUFFER + at).es())?;
            self.number(8)?;
        }
        self.say(" bytes\r\n")
    }

    /// Every function of bus 0: device and function, vendor and device id, class.
    fn pci(&mut self) -> Result<(), IcedError> {
        let (mut next, mut absent) = (self.a.create_label(), self.a.create_label());
        self.a.xor(edi, edi)?;
        self.a.set_label(&mut next)?;
        self.a.mov(eax, edi)?;
        self.a.shl(eax, 8)?;
        self.a.or(eax, 0x8000_0000u32 as i32)?;
        self.a.mov(ebp, eax)?;
        self.config()?;
        self.a.cmp(ax, 0xffffu32 as i32)?;
        self.a.je(absent)?;
        self.a.mov(ebx, eax)?;
        self.say("PCI      devfn ")?;
        self.a.mov(eax, edi)?;
        self.number(2)?;
        self.say(" id ")?;
        self.a.mov(eax, ebx)?;
        self.number(8)?;
        self.say(" class ")?;
        self.a.lea(eax, dword_ptr(ebp + 8))?;
        self.config()?;
        self.a.shr(eax, 8)?;
        self.number(6)?;
        self.say("\r\n")?;
        self.a.set_label(&mut absent)?;
        self.a.inc(edi)?;
        self.a.cmp(edi, 256)?;
        self.a.jne(next)
    }

    /// TSC and PM timer ticks while counter 2 of the 8254 counts 59,659 (a twentieth of a second).
    fn timers(&mut self) -> Result<(), IcedError> {
        self.set_config(PM | 0x40, PM_BASE | 1)?;
        self.set_config(PM | 0x80, 1)?;
        self.a.in_(al, 0x61)?;
        self.a.and(al, 0xfcu32 as i32)?;
        self.a.or(al, 1)?; // gate on, speaker off
        self.a.out(0x61, al)?;
        self.a.mov(al, 0xb0)?; // counter 2, mode 0
        self.a.out(0x43, al)?;
        for byte in 59_659u16.to_le_bytes() {
            self.a.mov(al, u32::from(byte))?;
            self.a.out(0x42, al)?;
        }
        self.a.rdtsc()?;
        self.a.mov(esi, eax)?;
        self.a.mov(dx, PM_BASE + 8)?;
        self.a.in_(eax, dx)?;
        self.a.mov(ebp, eax)?;
        let mut wait = self.a.create_label();
        self.a.set_label(&mut wait)?;
        self.a.in_(al, 0x61)?;
        self.a.test(al, 0x20)?; // OUT of counter 2
        self.a.je(wait)?;
        self.a.in_(eax, dx)?;
        self.a.sub(eax, ebp)?;
        self.a.and(eax, 0xff_ffff)?;
        self.a.push(eax)?;
        self.a.rdtsc()?;
        self.a.sub(eax, esi)?;
        self.a.push(eax)?;
        self.say("Timers   in 1/20 s: TSC ")?;
        self.a.pop(eax)?;
        self.number(8)?;
        self.say(", PM timer ")?;
        self.a.pop(eax)?;
        self.number(8)?;
        self.say(" (expected 0002bb07)\r\n")
    }

    fn subroutines(&mut self) -> Result<(), IcedError> {
        let (mut next, mut end, mut wait) = (self.a.create_label(), self.a.create_label(), self.a.create_label());
        self.a.set_label(&mut self.puts)?;
        self.a.nop()?;
        self.a.set_label(&mut next)?;
        self.a.lodsb()?;
        self.a.test(al, al)?;
        self.a.je(end)?;
        self.a.call(self.putc)?;
        self.a.jmp(next)?;
        self.a.set_label(&mut end)?;
        self.a.ret()?;

        self.a.set_label(&mut self.putc)?;
        self.a.push(dx)?;
        self.a.push(ax)?;
        self.a.mov(dx, SERIAL + 5)?;
        self.a.set_label(&mut wait)?;
        self.a.in_(al, dx)?;
        self.a.test(al, 0x20)?;
        self.a.je(wait)?;
        self.a.mov(dx, SERIAL)?;
        self.a.pop(ax)?;
        self.a.out(dx, al)?;
        screen::put(&mut self.a)?;
        self.a.pop(dx)?;
        self.a.ret()?;

        // EAX in hexadecimal, CX digits.
        let (mut digit, mut decimal) = (self.a.create_label(), self.a.create_label());
        self.a.set_label(&mut self.hex)?;
        self.a.push(ebx)?;
        self.a.mov(ebx, eax)?;
        self.a.set_label(&mut digit)?;
        self.a.dec(cx)?;
        self.a.push(cx)?;
        self.a.shl(cl, 2)?;
        self.a.mov(eax, ebx)?;
        self.a.shr(eax, cl)?;
        self.a.pop(cx)?;
        self.a.and(al, 0xf)?;
        self.a.add(al, u32::from(b'0'))?;
        self.a.cmp(al, u32::from(b'9'))?;
        self.a.jbe(decimal)?;
        self.a.add(al, u32::from(b'a' - b'9' - 1))?;
        self.a.set_label(&mut decimal)?;
        self.a.call(self.putc)?;
        self.a.test(cx, cx)?;
        self.a.jne(digit)?;
        self.a.pop(ebx)?;
        self.a.ret()
    }
}

/// The image: 64 KiB, entered at its reset vector.
///
/// # Errors
/// The assembler refused an instruction: a mistake in this file.
pub fn rom() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    let (puts, putc, hex) = (a.create_label(), a.create_label(), a.create_label());
    let mut g = Guest { a, puts, putc, hex, texts: Vec::new() };
    g.a.cli()?;
    g.a.cld()?;
    g.a.mov(ax, 0xf000)?;
    g.a.mov(ds, ax)?;
    g.a.xor(ax, ax)?;
    g.a.mov(es, ax)?;
    g.a.mov(ss, ax)?;
    g.a.mov(sp, 0x7000)?;
    screen::set_up(&mut g.a)?;
    g.say("Qomet's built-in guest\r\n")?;
    g.cpuid()?;
    g.memory()?;
    g.pci()?;
    g.timers()?;
    g.say(&format!("{FAREWELL}\r\n"))?;
    g.a.mov(dx, PM_BASE + 4)?;
    g.a.mov(ax, 0x2000)?; // SLP_EN, type 0: soft-off
    g.a.out(dx, ax)?;
    let mut stop = g.a.create_label();
    g.a.set_label(&mut stop)?;
    g.a.hlt()?;
    g.a.jmp(stop)?;
    g.subroutines()?;
    let mut image = g.a.assemble(0)?;
    image.resize(screen::TABLES.into(), 0);
    image.extend(screen::tables());
    image.resize(TEXTS as usize, 0);
    image.append(&mut g.texts);
    image.resize(SIZE, 0);
    rom::enter_at_start(&mut image);
    Ok(image)
}
