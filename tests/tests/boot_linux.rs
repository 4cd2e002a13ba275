//! Debian kernels boot under SeaBIOS to user space and power the machine off, by the command line a user would type.

use std::{path::PathBuf, time::Duration};
use tests::{
    initramfs::{self, Init},
    packages,
    process::{Output, run_within},
};

/// Longest boot: the tests of this file run at once, on as few as two busy cores.
const LIMIT: Duration = Duration::from_secs(300);
/// What the guest prints once its shell script runs.
const UP: &str = "USERSPACE UP";

struct Guest {
    firmware: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Guest {
    fn amd64(name: &str, script: &str) -> Guest {
        let script = format!("echo {UP}\n{script}");
        Guest {
            firmware: packages::seabios().expect("SeaBIOS"),
            kernel: packages::kernel().expect("a kernel"),
            initrd: initramfs::cached(name, "amd64", Init::Script(&script)).expect("an initramfs"),
        }
    }

    fn i686(name: &str) -> Guest {
        Guest {
            firmware: packages::seabios().expect("SeaBIOS"),
            kernel: packages::kernel_686().expect("a kernel"),
            initrd: initramfs::cached(name, "i386", Init::Script(&format!("echo {UP}; uname -m")))
                .expect("an initramfs"),
        }
    }

    fn boot(&self, args: &[&str]) -> Output {
        let text = |p: &PathBuf| p.to_str().expect("a path in UTF-8").to_owned();
        let (firmware, kernel, initrd) = (text(&self.firmware), text(&self.kernel), text(&self.initrd));
        let mut all = vec!["-nographic", "-no-reboot", "-L", &firmware, "-kernel", &kernel, "-initrd", &initrd];
        all.extend(["-append", "console=ttyS0 panic=-1 quiet"]);
        all.extend(args);
        run_within(LIMIT, &all, "")
    }
}

fn check(out: &Output) -> String {
    let (console, error) = (out.stdout.clone(), &out.stderr);
    assert!(console.contains(UP), "no user space: {console}\n{error}");
    assert!(console.contains("Requesting system poweroff"), "no power-off: {console}");
    assert_eq!(out.code, Some(0), "{console}\n{error}");
    console
}

#[test]
fn one_cpu() {
    check(&Guest::amd64("one.cpio", "cat /proc/cpuinfo").boot(&["-m", "512"]));
}

#[test]
fn four_cpus() {
    let guest = Guest::amd64("four.cpio", "echo CPUS $(nproc)");
    assert!(check(&guest.boot(&["-m", "512", "-smp", "4"])).contains("CPUS 4"));
}

#[test]
fn cpu_max_and_memory_above_4_gib() {
    let guest = Guest::amd64("max.cpio", "grep MemTotal /proc/meminfo");
    let console = check(&guest.boot(&["-cpu", "max", "-m", "5G"]));
    let total = console.lines().find_map(|l| l.strip_prefix("MemTotal:")).expect("a line of /proc/meminfo");
    let kib: u64 = total.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kib > 4 << 20, "{kib} KiB");
}

#[test]
fn a_32_bit_kernel_on_pentium3() {
    assert!(check(&Guest::i686("p3.cpio").boot(&["-m", "512", "-cpu", "pentium3"])).contains("i686"));
}

#[test]
fn a_32_bit_kernel_on_qemu32() {
    check(&Guest::i686("q32.cpio").boot(&["-m", "512", "-cpu", "qemu32"]));
}
