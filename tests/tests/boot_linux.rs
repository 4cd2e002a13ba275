//! Debian kernels boot under SeaBIOS to user space and power the machine off, by the command line a user would type; every way
//! to reset a PC comes back to user space; the guest's clocks agree.

use serde_json::json;
use std::{process::Command, time::Duration};
use tests::{
    guest::{Guest, Linux},
    process::binary,
    reset_guest::{self, RESETS},
};

/// Longest boot: the tests of this file run at once, on as few as two busy cores.
const LIMIT: Duration = Duration::from_secs(300);
/// What the guest prints once its shell script runs.
const UP: &str = "USERSPACE UP";

/// Boots, and checks that user space was reached and the machine powered itself off.
fn boot(linux: anyhow::Result<Linux>, args: &[&str]) -> String {
    let mut all = linux.expect("the packages").args("");
    all.extend(["-no-reboot"].iter().chain(args).map(|a| (*a).to_owned()));
    let mut guest = Guest::ours(&all);
    guest.line(UP, LIMIT);
    guest.line("Requesting system poweroff", LIMIT);
    let (code, console) = guest.finish(LIMIT);
    assert_eq!(code, Some(0), "{console}");
    console
}

fn amd64(name: &str, script: &str) -> anyhow::Result<Linux> {
    Linux::amd64(name, &format!("echo {UP}\n{script}"))
}

#[test]
fn one_cpu() {
    boot(amd64("one.cpio", "cat /proc/cpuinfo"), &["-m", "512"]);
}

/// The other tests use both tiers.
#[test]
fn the_interpreter_alone() {
    boot(amd64("interp.cpio", "cat /proc/cpuinfo"), &["-m", "512", "-accel", "tcg,tier=interp"]);
}

#[test]
fn two_cpus_with_all_code_compiled_at_once() {
    let guest = amd64("jit2.cpio", "echo CPUS $(nproc)");
    assert!(boot(guest, &["-m", "512", "-smp", "2", "-accel", "tcg,tier=jit"]).contains("CPUS 2"));
}

#[test]
fn four_cpus_by_turns() {
    let guest = amd64("turns.cpio", "echo CPUS $(nproc)");
    assert!(boot(guest, &["-m", "512", "-smp", "4", "-accel", "tcg,thread=single"]).contains("CPUS 4"));
}

#[test]
fn four_cpus() {
    assert!(boot(amd64("four.cpio", "echo CPUS $(nproc)"), &["-m", "512", "-smp", "4"]).contains("CPUS 4"));
}

#[test]
fn cpu_max_and_memory_above_4_gib() {
    let console = boot(amd64("max.cpio", "grep MemTotal /proc/meminfo"), &["-cpu", "max", "-m", "5G"]);
    let total = console.lines().find_map(|l| l.strip_prefix("MemTotal:")).expect("a line of /proc/meminfo");
    let kib: u64 = total.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kib > 4 << 20, "{kib} KiB");
}

#[test]
fn a_32_bit_kernel_on_pentium3() {
    let linux = Linux::i686("p3.cpio", &format!("echo {UP}; uname -m"));
    assert!(boot(linux, &["-m", "512", "-cpu", "pentium3"]).contains("i686"));
}

#[test]
fn a_32_bit_kernel_on_qemu32() {
    boot(Linux::i686("q32.cpio", &format!("echo {UP}")), &["-m", "512", "-cpu", "qemu32"]);
}

#[test]
fn every_reset_comes_back() {
    let mut guest = reset_guest::boot(Command::new(binary()), LIMIT).expect("the packages");
    for how in RESETS {
        reset_guest::reset(&mut guest, how, LIMIT);
    }
    guest.qmp().run("quit", json!({}));
    assert_eq!(guest.finish(LIMIT).0, Some(0));
}

/// One virtual clock drives them all, so that this holds on a busy host as well: what the RTC counts in seconds of the kernel's
/// clock source (TSC, HPET and PM timer in turn).
#[test]
fn clocks_agree() {
    let script = format!(
        "echo {UP}\nS=/sys/devices/system/clocksource/clocksource0\nR=/sys/class/rtc/rtc0/since_epoch\n\
         edge() {{ a=$(cat $R); while [ $a = $(cat $R) ]; do :; done; }}\n\
         for c in tsc hpet acpi_pm; do\n echo $c > $S/current_clocksource\n edge; u=$(cut -d' ' -f1 /proc/uptime)\n\
         sleep 3; edge; v=$(cut -d' ' -f1 /proc/uptime)\n echo CLOCK $(cat $S/current_clocksource) $u $v\ndone"
    );
    let console = boot(Linux::amd64("clocks.cpio", &script), &["-m", "512"]);
    for name in ["tsc", "hpet", "acpi_pm"] {
        let line = console
            .lines()
            .find_map(|l| l.strip_prefix(&format!("CLOCK {name} ")))
            .unwrap_or_else(|| panic!("{name}: {console}"));
        let times: Vec<f64> = line.split(' ').map(|t| t.parse().expect("seconds")).collect();
        let [from, to] = times[..] else { panic!("{line}") };
        let seconds = to - from;
        assert!(
            (seconds - seconds.round()).abs() < 0.2 && seconds > 2.9,
            "{name}: {seconds} s from one RTC second to another"
        );
    }
}
