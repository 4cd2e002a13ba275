//! The machine code of tier 0: every handler goes on by a jump, none returns, few make a stack frame.
//!
//! Rust does not promise sibling calls; this test notices when a compiler or a change of the code loses them.
#![cfg(target_arch = "x86_64")]

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic};
use object::{Object, ObjectSection, ObjectSymbol};
use target_i386::testing::Bare;

#[test]
fn no_handler_returns() {
    // (Keeps the handlers in this binary.)
    Bare::new(64, 1 << 16);
    let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let file = object::File::parse(&*file).unwrap();
    let (mut handlers, mut frames) = (0, 0);
    for s in file.symbols() {
        let name = s.name().unwrap_or_default();
        let special = [
            "tier08exec_dyn17h",
            "tier08exec_any17h",
            "tier04miss17h",
            "tier04rare17h",
            "tier05leave17h",
            "tier04link17h",
        ];
        let special = special.iter().any(|n| name.contains(n));
        let handler = name.contains("tier04exec17h") || name.contains("tier09exec_pair17h");
        if !(handler || special) || s.size() == 0 {
            continue;
        }
        let section = file.section_by_index(s.section_index().unwrap()).unwrap();
        let code = section.data_range(s.address(), s.size()).unwrap().unwrap();
        let mut first = true;
        let mut jumps = 0;
        for i in Decoder::with_ip(64, code, s.address(), DecoderOptions::NONE) {
            // (The special ones hold the end of a run as well, which returns.)
            assert!(special || i.flow_control() != FlowControl::Return, "{name} at {:x}", i.ip());
            // The next op is never called: its handler is the first word of an op.
            let next = i.flow_control() == FlowControl::IndirectCall
                && i.memory_base() != iced_x86::Register::None
                && !i.is_ip_rel_memory_operand();
            assert!(!next, "{name} calls at {:x}", i.ip());
            frames += (first && matches!(i.mnemonic(), Mnemonic::Push | Mnemonic::Sub)) as u32;
            first = false;
            jumps += (i.flow_control() == FlowControl::IndirectBranch) as u32;
        }
        assert!(jumps > 0, "{name} does not go on");
        handlers += 1;
    }
    assert!(handlers > 1000, "{handlers} handlers found: have their symbols other names?");
    assert!(frames * 3 < handlers, "{frames} of {handlers} make a stack frame");
}
