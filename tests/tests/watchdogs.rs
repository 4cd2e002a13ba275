//! Watchdogs, panic devices and the USB controller, as Linux's own drivers and the firmware see them.

use serde_json::json;
use tests::guest::{Guest, Linux};
use tests::modules::{self, value};
use tests::packages;
use tests::qtest::Qtest;

fn firmware() -> String {
    packages::seabios().expect("SeaBIOS can be fetched").to_str().expect("a plain path").to_owned()
}

/// A guest that loads drivers and then runs `script`.
fn linux(name: &str, drivers: &[&str], script: &str) -> Linux {
    let needed = modules::with_needs_686(drivers).expect("modules");
    let files: Vec<(&str, &[u8])> = needed.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    Linux::i686_with(name, &format!("{}\n{script}\n", modules::commands(&needed)), &files).expect("the packages")
}

#[test]
fn linux_binds_watchdogs_panic_devices_and_the_usb_controller() {
    let script = "for i in $(seq 50); do [ -e /sys/bus/usb/devices/usb1 ] && break; sleep 0.1; done\n\
        for d in /sys/bus/pci/devices/*; do echo BOUND-$(cat $d/vendor)-$(cat $d/device) $(basename $(readlink $d/driver)); done\n\
        echo HUB $(cat /sys/bus/usb/devices/usb1/maxchild) $(cat /sys/bus/usb/devices/usb1/speed)\n\
        echo PORT $(ls /sys/bus/acpi/drivers/pvpanic* /sys/bus/platform/drivers/pvpanic* 2>/dev/null | grep -c QEMU0001)";
    let drivers = ["uhci_hcd", "i6300esb", "pvpanic_pci", "pvpanic_mmio"];
    let guest = linux("watchdogs.cpio", &drivers, script);
    let out = modules::run(&guest, &["-usb", "-device", "i6300esb", "-device", "pvpanic-pci", "-device", "pvpanic"]);
    for (id, driver) in [("0x8086-0x7020", "uhci_hcd"), ("0x8086-0x25ab", "i6300ESB"), ("0x1b36-0x0011", "pvpanic-pci")]
    {
        assert!(value(&out, &format!("BOUND-{id}")).to_lowercase().starts_with(&driver.to_lowercase()), "{id}: {out}");
    }
    assert_eq!((value(&out, "HUB"), value(&out, "PORT")), ("2 12", "1"), "{out}");
}

#[test]
fn a_guest_that_panics_is_heard() {
    let guest = linux("panics.cpio", &["pvpanic_pci"], "echo c > /proc/sysrq-trigger");
    let mut args = guest.args("panic=0");
    args.extend(["-device", "pvpanic-pci", "-action", "panic=pause"].map(str::to_owned));
    let run = Guest::ours(&args);
    let mut q = run.qmp();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while q.run("query-status", json!({}))["status"] != "guest-panicked" {
        assert!(std::time::Instant::now() < deadline, "the guest's panic was not heard");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

#[test]
fn a_watchdog_that_nobody_serves_fires_after_two_counts() {
    let mut q = Qtest::start(&[
        "-nodefaults",
        "-m",
        "16",
        "-L",
        &firmware(),
        "-device",
        "i6300esb,addr=4",
        "-action",
        "watchdog=none",
    ]);
    let config = |q: &mut Qtest, at: u32, len: u32, v: u32| {
        q.out(0xcf8, 4, 0x8000_2000 | at & !3);
        q.out(0xcfc + (at & 3) as u16, len, v);
    };
    config(&mut q, 0x10, 4, 0xfe00_0000);
    config(&mut q, 4, 2, 2);
    for preload in [0xfe00_0000u64, 0xfe00_0004] {
        for key in [0x80, 0x86] {
            q.store(0xfe00_000c, 2, key);
        }
        q.store(preload, 4, 0x400);
    }
    config(&mut q, 0x68, 1, 2);
    // 400H << 15 ticks of 33 MHz: a little over a second each.
    q.clock_step(1_016_000_000);
    assert_eq!(q.load(0xfe00_000c, 2), 0);
    q.clock_step(1_020_000_000);
    assert_eq!(q.load(0xfe00_000c, 2), 0x1200, "it caused the last reboot");
}

#[test]
fn the_usb_controller_gives_back_what_nobody_answers() {
    let mut q = Qtest::start(&["-nodefaults", "-m", "16", "-L", &firmware(), "-device", "piix3-usb-uhci,addr=4"]);
    for (at, v) in [(0x20, 0xc001u32), (4, 5)] {
        q.out(0xcf8, 4, 0x8000_2000 | at);
        q.out(0xcfc, 4, v);
    }
    // All frames: a queue with one transfer, then the end.
    let (list, queue, transfer) = (0x10_0000u64, 0x11_0000u64, 0x12_0000u64);
    q.write(list, &(queue as u32 | 2).to_le_bytes().repeat(1024));
    q.store(queue, 4, 1);
    q.store(queue + 4, 4, transfer);
    for (n, word) in [1u64, 0x1980_0000, 0x00e0_0069, 0].into_iter().enumerate() {
        q.store(transfer + 4 * n as u64, 4, word);
    }
    q.out(0xc008, 4, list as u32);
    q.out(0xc004, 2, 0xf);
    q.out(0xc000, 2, 1);
    q.clock_step(1_000_000);
    assert_eq!(
        (q.inp(0xc006, 2), q.inp(0xc002, 2)),
        (1, 3),
        "a frame went by, in which one failed and asked for an interrupt"
    );
    assert_eq!(q.load(transfer + 4, 4), 0x0144_07ff, "inactive, stalled, timed out");
    q.out(0xc002, 2, 3);
    q.clock_step(10_000_000);
    assert_eq!((q.inp(0xc006, 2), q.inp(0xc002, 2)), (11, 0));
    q.out(0xc000, 2, 0);
    q.clock_step(10_000_000);
    assert_eq!((q.inp(0xc006, 2), q.inp(0xc002, 2)), (11, 0x20));
}
