//! Tiny static Linux programs for guests, assembled here: what busybox has no command for.
//! Source: the ELF-64 object file format; Linux's x86-64 system calls.

use iced_x86::{IcedError, code_asm::*};

const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// A program that gets access to the I/O ports and sets the bits of `value` at `port`.
///
/// # Errors
/// The assembler's.
pub fn set_port_bits(port: u16, value: u8) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    a.mov(eax, 172)?; // iopl
    a.mov(edi, 3)?;
    a.syscall()?;
    a.mov(edx, u32::from(port))?;
    a.in_(al, dx)?;
    a.or(al, i32::from(value as i8))?;
    a.out(dx, al)?;
    a.mov(eax, 60)?; // exit
    a.xor(edi, edi)?;
    a.syscall()?;
    Ok(executable(&a.assemble(BASE + HEADERS)?))
}

/// An ELF executable of one segment that starts with `code`.
fn executable(code: &[u8]) -> Vec<u8> {
    let size = HEADERS + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| elf.extend_from_slice(bytes);
    put(&[2, 0, 62, 0, 1, 0, 0, 0]); // ET_EXEC, EM_X86_64, EV_CURRENT
    for v in [BASE + HEADERS, 64, 0] {
        put(&v.to_le_bytes()); // entry, program headers, no sections
    }
    put(&[0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]); // flags, sizes, one program header
    put(&[1, 0, 0, 0, 5, 0, 0, 0]); // PT_LOAD, readable and executable
    for v in [0, BASE, BASE, size, size, 0x1000] {
        put(&v.to_le_bytes());
    }
    put(code);
    elf
}
