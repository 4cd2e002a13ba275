//! Generated code as text.

/// Disassembles host code that lies at `address`; as bytes on hosts whose instructions nothing here knows.
pub(crate) fn disassemble(code: &[u8], address: u64) -> String {
    let mut out = String::new();
    #[cfg(target_arch = "x86_64")]
    {
        use iced_x86::{Decoder, DecoderOptions, Formatter};
        let mut format = super::formatter();
        let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
        while decoder.can_decode() {
            let at = decoder.position();
            let i = decoder.decode();
            let mut text = String::new();
            format.format(&i, &mut text);
            super::push_instruction(&mut out, i.ip(), &code[at..at + i.len()], &text);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for (n, line) in code.chunks(16).enumerate() {
        super::push_instruction(&mut out, address + 16 * n as u64, line, "");
    }
    out
}
