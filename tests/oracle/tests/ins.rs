//! `tests/ins/*.ins` through every executor there is.

use oracle::{
    Executor,
    guest::{Drive, Guest},
    ins,
    layout::Layout,
};

fn files() -> Vec<(String, Vec<ins::Line>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../ins");
    let mut out: Vec<_> = std::fs::read_dir(folder)
        .expect("tests/ins")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "ins"))
        .map(|p| {
            let text = std::fs::read_to_string(&p).expect("a text file");
            let name = p.file_name().expect("a name").to_string_lossy().into_owned();
            let lines = ins::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            (name, lines)
        })
        .collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(out.iter().any(|(_, l)| !l.is_empty()));
    out
}

fn run(executor: &mut dyn Executor, can: impl Fn(oracle::Mode) -> bool) {
    let mut wrong = String::new();
    for (file, lines) in files() {
        for line in lines.iter().filter(|l| can(l.mode)) {
            let d = ins::check(line, executor);
            if !d.is_empty() {
                wrong += &format!("{file}:{}: {}, {}\n{d}", line.number, line.text, executor.name());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn the_host_does_what_the_lines_say() {
    let mut host = oracle::host::Host::new().expect("the host executor");
    let modes = host.modes();
    run(&mut host, |m| modes.contains(&m));
}

#[test]
fn the_interpreter_does_what_the_lines_say() {
    run(&mut Guest::new(Layout::new(0), Drive::Run), |_| true);
    run(&mut Guest::new(Layout::new(0), Drive::Step), |_| true);
}

/// A wrong expectation must fail, or the files would prove nothing.
#[test]
fn wrong_lines_fail() {
    let mut guest = Guest::new(Layout::new(0), Drive::Run);
    for wrong in [
        "48 11 d8 | adc rax, rbx | rax=1 rbx=1 cf=1 | rax=2",
        "48 11 d8 | adc rax, rbx | rax=1 rbx=1 cf=1 | rax=3 zf=1",
        "48 11 d8 | adc rax, rcx | rax=1 rbx=1 cf=1 | rax=3",
        "89 18 | mov [rax], ebx | rax=data+0x10 rbx=1 | @10=02000000",
        "89 18 | mov [rax], ebx | rax=data+0x10 rbx=1 | fault=14:7",
        "90 | nop | rax=1 | rax=2",
    ] {
        let lines = ins::parse(wrong).expect("it parses");
        assert!(!ins::check(&lines[0], &mut guest).is_empty(), "{wrong}");
    }
    assert!(ins::parse("48 | a | b").is_err());
    assert!(ins::parse("4x | a | | ").is_err());
}
