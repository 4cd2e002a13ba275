//! What a guest's network is put through: `cargo xtask soak network` runs all of it, `cargo test` the same with less ([`Load`]).

mod host;
mod link;
mod services;

pub use host::{lease_commands, md5, noise, serve};
pub use link::{TRANSPORTS, speed, two_machines};
pub use services::services;

use crate::guest::{Guest, Linux};
use crate::peer_bench::image::{self, Setup, guest_program};
use crate::peer_bench::server;
use crate::peer_bench::side::{Booted, Native, guest_args};
use anyhow::{Context, Result, ensure};
use std::{
    net::TcpListener,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// Longest time for anything a guest does.
const LIMIT: Duration = Duration::from_secs(500);
/// Drivers of the guests' card.
const DRIVERS: [&str; 2] = ["virtio_pci", "virtio_net"];
/// Memory of a guest.
const RAM: u64 = 1 << 30;
/// What the process may keep, in KiB, of what many connections have taken.
const KEPT: u64 = 48 << 10;

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// MiB in each direction.
    pub mebibytes: u64,
    /// Connections one after the other, in each direction.
    pub connections: u64,
    /// Connections at once.
    pub many: u64,
}

/// That of the soak.
pub const SOAK: Load = Load { mebibytes: 1024, connections: 10_000, many: 8_000 };
/// That of `cargo test`.
pub const SHORT: Load = Load { mebibytes: 3, connections: 100, many: 200 };

/// A free port of the host's.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Connections of a guest's through the user-mode network of `qomet`, both ways: what comes is what the same program gets on the host, and
/// afterwards the process has not kept what they took. `say` hears of each step.
///
/// # Errors
/// What went wrong, or is missing on this machine.
pub fn connections(qomet: &Path, load: &Load, mut say: impl FnMut(&str)) -> Result<()> {
    let (server, forward, program) = (server::start()?, free_port()?, guest_program()?);
    let mut native = Native::start(&program, None, Some(server))?;
    let script = "ip link set lo up && ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && \
                  ip route add default via 10.0.2.2";
    let setup = Setup { name: "soak-connections.cpio", modules: &DRIVERS, script };
    let linux = Linux::amd64_from(image::with_modules(&program, &setup)?)?;
    let mut command = Command::new(qomet);
    command.args(guest_args(&linux, &format!("BENCH_SERVER=10.0.2.2:{server} BENCH_FORWARD={forward}"), 1, "tcg"));
    let netdev = format!("user,id=net,hostfwd=tcp:127.0.0.1:{forward}-:7000");
    command.args(["-netdev", &netdev, "-device", "virtio-net-pci,netdev=net,romfile="]);
    let (mut guest, _) = Booted::start(command)?;
    let mut step = |guest: &mut Booted, name: &str, count: u64| -> Result<()> {
        let began = Instant::now();
        let there = guest.run(name, count, LIMIT)?;
        let here = native.run(name, count)?;
        ensure!(there.digest == here.digest, "{name} {count}: {} in the guest, {} here", there.digest, here.digest);
        say(&format!("{name} {count}: {:.1} s, the same as on the host", began.elapsed().as_secs_f64()));
        Ok(())
    };
    let mut all = |guest: &mut Booted, load: &Load| -> Result<()> {
        step(guest, "net-connect", load.connections)?;
        step(guest, "net-accept", load.connections)?;
        step(guest, "net-many", load.many)?;
        for name in ["net-up", "net-down", "net-forward"] {
            step(guest, name, load.mebibytes)?;
        }
        step(guest, "net-request", load.connections / 10)
    };
    // (What is used once is there from then on: code that is made of the guest's, buffers.)
    all(&mut guest, &SHORT)?;
    let before = settled(guest.guest())?;
    all(&mut guest, load)?;
    let after = settled(guest.guest())?;
    let flows =
        guest.guest().qmp().hmp("info usernet").lines().filter(|l| l.contains("TCP[") && !l.contains("HOST")).count();
    say(&format!("{before} KiB beside the guest's RAM before, {after} KiB after; {flows} connections are left"));
    ensure!(after < before + KEPT, "the process grew from {before} to {after} KiB");
    ensure!(flows == 0, "{flows} connections are left");
    guest.off()?;
    Ok(())
}

/// What the process has beside the guest's RAM once that is not getting less any more.
fn settled(guest: &Guest) -> Result<u64> {
    let (mut least, mut since) = (u64::MAX, Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        let now = guest.overhead_kib(RAM)?;
        if now + 512 < least {
            (least, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(least)
}

/// A busybox guest with the card's drivers and `programs` in `/bin` that runs `script`.
fn busybox(name: &str, script: &str, programs: &[(String, Vec<u8>)]) -> Result<Linux> {
    let mut files = crate::modules::with_needs(&DRIVERS)?;
    let load = crate::modules::commands(&files);
    files.extend_from_slice(programs);
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    Linux::amd64_with(name, &format!("{load}{script}\n"), &files)
}

/// Starts `qomet` with such a guest and a card on `netdev`.
fn start(qomet: &Path, linux: &Linux, netdev: &str, mac: &str) -> Result<Guest> {
    let mut command = Command::new(qomet);
    command.args(machine_args(linux, netdev, mac));
    Guest::start(command)
}

/// Its options.
fn machine_args(linux: &Linux, netdev: &str, mac: &str) -> Vec<String> {
    let card = format!("virtio-net-pci,netdev=n,romfile=,mac={mac}");
    let more = ["-m", "512", "-no-reboot", "-netdev", netdev, "-device", &card];
    [linux.args("no_timer_check"), more.map(str::to_owned).to_vec()].concat()
}

/// What a guest said behind `key` at the start of a line.
fn said<'a>(console: &'a str, key: &str) -> Result<&'a str> {
    let found = console.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
    found.with_context(|| format!("no '{key}' in:\n{console}"))
}
