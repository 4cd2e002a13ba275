//! `-d`: what each item that concerns the engine writes, for a guest of a few instructions.

use iced_x86::code_asm::*;
use tests::process::run;
use tests::rom;

/// Three rounds of a loop, then protected mode, INT 21H and an undefined instruction.
fn guest() -> Vec<u8> {
    let gate = |handler: u16| [handler, 8, 0x8600, 0];
    rom::image(&[
        (0, &|a| {
            let mut round = a.create_label();
            a.xor(ax, ax)?;
            a.mov(ss, ax)?;
            a.mov(sp, 0x1000)?;
            a.mov(ecx, 3)?;
            a.set_label(&mut round)?;
            a.dec(ecx)?;
            a.jne(round)?;
            a.db(&[0x2e, 0x0f, 0x01, 0x16, 0x20, 0x02])?; // lgdt cs:[0x220]
            a.db(&[0x2e, 0x0f, 0x01, 0x1e, 0x30, 0x02])?; // lidt cs:[0x230]
            a.mov(eax, 1)?;
            a.mov(cr0, eax)?;
            a.db(&[0xea, 0x80, 0x00, 0x08, 0x00]) // jmp 8:0x80
        }),
        (0x80, &|a| {
            a.mov(ax, 0x10)?;
            a.mov(ss, ax)?;
            a.int(0x21)?;
            a.ud2()
        }),
        (0x100, &|a| a.iret()),
        (0x110, &|a| {
            rom::end(a)?;
            a.hlt()
        }),
        (0x200, &|a| a.dq(&[0, 0x0000_9a0f_0000_ffff, 0x0000_9200_0000_ffff])),
        (0x220, &|a| a.dw(&[0x17, 0x200, 0xf])),
        (0x230, &|a| a.dw(&[0x1ff, 0x300, 0xf])),
        (0x300 + 6 * 8, &|a| a.dw(&gate(0x110))),
        (0x300 + 0x21 * 8, &|a| a.dw(&gate(0x100))),
    ])
}

/// What the guest leaves in the log.
fn log(args: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    std::fs::write(path("rom"), guest()).expect("write");
    let (rom, log) = (path("rom"), path("log-%d"));
    let own = ["-display", "none", "-nodefaults", "-bios", &rom, "-device", "isa-debug-exit", "-D", &log];
    let out = run(&[&own, args].concat(), "");
    assert_eq!((out.code, out.stderr.as_str()), (Some(1), ""), "{}", out.stdout);
    let logs: Vec<_> = std::fs::read_dir(dir.path()).expect("a folder").flatten().map(|f| f.path()).collect();
    let log = logs.iter().find(|f| f.to_str().is_some_and(|f| !f.contains('%') && f.contains("log-")));
    std::fs::read_to_string(log.expect("named after the process")).expect("text")
}

fn count(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

#[test]
fn decoded_code_is_shown() {
    let text = log(&["-d", "in_asm"]);
    assert!(
        text.starts_with("----------------\nIN: \n0xfffffff0:  ea 00 00 00 f0           ljmp     $0xf000, $0x0\n---"),
        "{text}"
    );
    for line in ["0x000f0000:  31 c0                    xor      %ax, %ax", "0x000f0087:  0f 0b                    ud2"]
    {
        assert_eq!(count(&text, line), 1, "{line}: {text}");
    }
    // Blocks come in the order in which they are met.
    assert!(text.find("int      $0x21") < text.find("iret"), "{text}");
}

#[test]
fn events_are_shown_with_the_registers() {
    let text = log(&["-d", "int"]);
    let lines: Vec<&str> = text.lines().collect();
    let at = |start: &str| {
        let found = lines.iter().position(|l| l.starts_with(start));
        found.unwrap_or_else(|| panic!("no '{start}': {text}"))
    };
    let int = at(
        "     0: v=21 e=0000 i=1 cpl=0 IP=0008:0000000000000085 pc=00000000000f0085 SP=0010:0000000000001000 env->regs[R_EAX]=0000000000000010",
    );
    assert!(lines[int + 1].starts_with("EAX=00000010 EBX="), "{text}");
    let ud = at("     1: v=06 e=0000 i=0 cpl=0 IP=0008:0000000000000087 pc=00000000000f0087 ");
    assert_eq!(lines[ud - 1], "check_exception old: 0xffffffff new 0x6");
    assert_eq!((count(&text, " v="), count(&text, "CCO=EFLAGS"), count(&text, "XMM00=")), (2, 2, 0), "{text}");
}

#[test]
fn every_block_is_shown_as_it_is_entered() {
    for tier in ["interp", "jit"] {
        let accel = format!("tcg,tier={tier}");
        let text = log(&["-accel", &accel, "-d", "exec,cpu,nochain"]);
        let entered = |pc: u32| count(&text, &format!(" [000f0000/{pc:016x}/"));
        // (The first round is part of the block before the loop.)
        assert_eq!([0xf_0000, 0xf_000d, 0xf_0011, 0xf_0100].map(entered), [1, 2, 1, 1], "{text}");
        assert_eq!(count(&text, "Trace 0: 0x"), count(&text, "EAX="), "{text}");
        assert_eq!(count(&text, "XMM00="), 0, "{text}");
    }
    let text = log(&["-d", "exec,cpu,fpu", "-dfilter", "0xf0000..0xf0007,0xf000d+1"]);
    assert_eq!([count(&text, "Trace 0: "), count(&text, "XMM00=")], [3, 3], "{text}");
}

#[test]
fn compiled_code_is_shown() {
    let text = log(&["-accel", "tcg,tier=jit", "-d", "op,out_asm"]);
    let of =
        |pc: u32| [format!("OP:\n-- guest addr {pc:#018x}\nfunction "), format!("]\n  -- guest addr {pc:#018x}\n0x")];
    for header in of(0xf_0000).iter().chain(&of(0xf_000d)) {
        assert!(text.contains(header.as_str()), "{header}: {text}");
    }
    assert_eq!(count(&text, "OP:"), count(&text, "OUT: [size="));
    #[cfg(target_arch = "x86_64")]
    assert!(text.contains(" ret"), "{text}");
    // Quick code as well: its steps, what is often run, the rest.
    #[cfg(target_arch = "x86_64")]
    {
        let text = log(&["-accel", "tcg,tier=jit,x-torture=1", "-d", "op,out_asm"]);
        assert!(text.contains("OP:\n-- guest addr 0x00000000000f000d quick\n v0 = "), "{text}");
        let out = text.split("-- guest addr 0x00000000000f000d quick\n0x").nth(1).expect("code");
        assert!(out.contains("  -- seldom run\n0x") && out.contains(" jmp "), "{out}");
        assert_eq!(count(&text, "OP:"), count(&text, "OUT: [size="));
    }
    let text = log(&["-accel", "tcg,tier=jit", "-d", "op", "-dfilter", "0x1000..0x1fff"]);
    assert_eq!(text, "");
}
