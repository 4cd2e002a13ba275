//! Project tasks: `cargo xtask TASK`.
#![forbid(unsafe_code)]

mod demo;
mod isa;
mod peer_bench;
mod soak;

use anyhow::{Context, Result, bail, ensure};
use std::{path::PathBuf, process::Command};

const USAGE: &str = "usage: cargo xtask TASK\n\
    \x20 bench-peer [OPTIONS]  runs workloads in guests of both emulators; floors in floors.toml (`--help`; alias `cargo bench-peer`)\n\
    \x20 demo         boots a Linux guest on this terminal (the built-in guest where nothing can be fetched)\n\
    \x20 demo debian  boots Debian on this terminal, from a disk that is made of packages first\n\
    \x20 fetch        fetches the packages that guests, tests and comparisons use\n\
    \x20 isa          writes docs/instructions.md; fails when an instruction is missing or unchecked\n\
    \x20 peer ARGS    runs the peer emulator with these arguments\n\
    \x20 peer-bench [ROUNDS]  measures start, boot, memory and idling of both emulators in turn; medians and ratios\n\
    \x20 soak [RUN…]  tests that take too long for `cargo test`\n\
    \x20 qtest-diff [SCRIPT…]  runs device scripts (tests/qtest) on both emulators; fails where answers differ";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["bench-peer", rest @ ..] => {
            let passed = bench_peer(rest)?;
            std::process::exit(i32::from(!passed))
        }
        ["demo", rest @ ..] => demo::run(rest),
        ["fetch"] => fetch(),
        ["isa"] => isa::run(),
        ["peer-bench"] => peer_bench::run(3),
        ["peer-bench", rounds] => peer_bench::run(rounds.parse().context("ROUNDS is a number")?),
        ["soak", runs @ ..] => soak::run(runs),
        ["qtest-diff", scripts @ ..] => tests::qtest_diff::run(scripts),
        ["peer", rest @ ..] => {
            let status = tests::packages::peer()?.command("qemu-system-x86_64").args(rest).status()?;
            std::process::exit(status.code().unwrap_or(1))
        }
        _ => bail!("{USAGE}"),
    }
}

fn fetch() -> Result<()> {
    use tests::packages::{
        bench_programs, busybox, installer, kernel, kernel_686, mmdebstrap, network_roms, peer, seabios,
    };
    let guests = [kernel()?, kernel_686()?, busybox("amd64")?, busybox("i386")?, bench_programs()?, installer()?];
    let programs = [seabios()?, network_roms()?, mmdebstrap()?, tests::tools::tools()?.grub()];
    for path in guests.iter().chain(&programs) {
        println!("{}", path.display());
    }
    println!("{}", peer()?.version()?);
    Ok(())
}

fn bench_peer(args: &[&str]) -> Result<bool> {
    use tests::peer_bench::{Options, USAGE, run};
    match Options::parse(args)? {
        Some(options) => run(&options, &release_binary()?),
        None => {
            println!("{USAGE}");
            Ok(true)
        }
    }
}

/// Builds the release binary and says where it is; `QOMET` in the environment names another one.
fn release_binary() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("QOMET") {
        return Ok(given.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(["build", "--release", "-p", "vl", "--bin", "qomet"]).status()?;
    ensure!(status.success(), "building qomet failed");
    Ok(tests::packages::target_dir().join("release/qomet"))
}
