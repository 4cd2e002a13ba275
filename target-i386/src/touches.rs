//! Which general registers an instruction touches. Source: iced's instruction information.

use crate::state::mode;
use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, OpAccess};

/// General registers that the instruction at the start of `code` reads and writes, a bit each. What is written in part is read as well.
pub fn touches(code: &[u8], mode: u32) -> (u32, u32) {
    let i = Decoder::new(mode::bits(mode), &code[..code.len().min(15)], DecoderOptions::NONE).decode();
    let (mut read, mut written) = (0, 0);
    for r in InstructionInfoFactory::new().info(&i).used_registers().iter().filter(|r| r.register().is_gpr()) {
        let bit = 1 << r.register().full_register().number();
        let (reads, writes) = match r.access() {
            OpAccess::Read | OpAccess::CondRead => (true, false),
            OpAccess::Write => (r.register().size() < 4, true),
            OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
            OpAccess::None | OpAccess::NoMemAccess => (false, false),
        };
        read |= bit * u32::from(reads);
        written |= bit * u32::from(writes);
    }
    (read, written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_told_from_each_other_and_parts_from_wholes() {
        // (Of 64 bits.)
        let cases: [(&[u8], _); 5] = [
            // mov eax, [rbx+rcx*4]
            (&[0x8b, 0x04, 0x8b], (0b1010, 0b1)),
            // mov al, 1
            (&[0xb0, 1], (0b1, 0b1)),
            // xchg r8, rsi
            (&[0x4c, 0x87, 0xc6], (0x140, 0x140)),
            // push rax
            (&[0x50], (0b1_0001, 0b1_0000)),
            // shl edx, cl
            (&[0xd3, 0xe2], (0b110, 0b100)),
        ];
        for (code, want) in cases {
            assert_eq!(touches(code, 2), want, "{code:x?}")
        }
    }
}
