//! Linux's own drivers on IDE disks and CD drives, and firmware that boots from them.

use tests::guest::Linux;
use tests::modules::{self, empty, run, value};

const DRIVERS: [&str; 5] = ["ata_piix", "sd_mod", "sr_mod", "isofs", "ext4"];

/// A guest that loads drivers, libata with `options`, and then runs `script`.
fn linux(name: &str, options: &str, script: &str) -> Linux {
    let needed = modules::with_needs(&DRIVERS).expect("modules");
    guest(Linux::amd64_with, name, &needed, options, script)
}

/// How a guest of a kernel is made.
type Make = fn(&str, &str, &[(&str, &[u8])]) -> anyhow::Result<Linux>;

fn guest(make: Make, name: &str, needed: &[(String, Vec<u8>)], options: &str, script: &str) -> Linux {
    let files: Vec<(&str, &[u8])> = needed.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    let script = format!(
        "{}\
         for i in $(seq 100); do [ -b /dev/sda ] && break; sleep 0.1; done\n\
         {script}\ndmesg | grep -iE 'ata[0-9.:]+ |error|exception' | grep -v Kernel\n",
        modules::commands(needed).replace("libata.ko", &format!("libata.ko {options}"))
    );
    make(name, &script, &files).expect("the packages")
}

const WRITE: &str = "\
    echo MODEL $(cat /sys/block/sda/device/model)\n\
    mke2fs /dev/sda >/dev/null\n\
    mount -t ext4 /dev/sda /tmp || echo NO mount\n\
    dd if=/dev/urandom of=/tmp/data bs=64k count=200 2>/dev/null\n\
    for i in $(seq 200); do echo $i > /tmp/f$i; done; rm /tmp/f1??\n\
    echo SUM $(md5sum < /tmp/data)\n\
    umount /tmp; echo 3 > /proc/sys/vm/drop_caches; mount -t ext4 /dev/sda /tmp\n\
    echo AGAIN $(md5sum < /tmp/data)\n\
    umount /tmp; sync";
const READ: &str = "\
    mount -t ext4 /dev/sda /tmp || echo NO mount\n\
    echo SUM $(md5sum < /tmp/data)\necho FILES $(ls /tmp/f* | wc -l) $(cat /tmp/f42)\numount /tmp\n\
    echo MODE $(cat /sys/class/ata_device/dev1.0/dma_mode)";

#[test]
fn what_linux_writes_to_a_disk_is_there_after_a_reboot() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("d");
    empty(&image, 64 << 20);
    let (write, read) = (linux("ide-write.cpio", "", WRITE), linux("ide-read.cpio", "", READ));
    let drive = format!("file={},format=raw,cache=none", image.display());
    let first = run(&write, &["-drive", &drive]);
    assert_eq!(value(&first, "MODEL"), "QEMU HARDDISK");
    assert!(first.contains("UDMA/100"), "{first}");
    let sum = value(&first, "SUM").to_owned();
    assert_eq!(value(&first, "AGAIN"), sum);
    let second = run(&read, &["-drive", &drive.replace("none", "writethrough")]);
    assert_eq!((value(&second, "SUM"), value(&second, "FILES")), (sum.as_str(), "100 42"));
    // By the data register instead of the bus master.
    let console = run(&linux("ide-pio.cpio", "dma=0", READ), &["-drive", &drive]);
    assert_eq!(value(&console, "SUM"), sum);
    let modes = (value(&second, "MODE"), value(&console, "MODE"));
    assert!(modes.0.contains("DMA") && !modes.1.contains("DMA"), "{modes:?}");
}

const AHCI: &str = "\
    for i in $(seq 100); do [ -b /dev/sr0 ] && break; sleep 0.1; done\n\
    echo DEPTH $(cat /sys/block/sda/device/queue_depth) $(cat /sys/block/sda/device/ncq_prio_supported)\n\
    echo CD $(head -c 4 /dev/sr0)";

#[test]
fn linux_queues_commands_on_ahci() {
    let dir = tempfile::tempdir().unwrap();
    let (image, cd) = (dir.path().join("d"), dir.path().join("cd"));
    empty(&image, 64 << 20);
    std::fs::write(&cd, b"disc".repeat(1 << 16)).unwrap();
    // (Debian's cloud kernel has no driver for it; ext4 asks for its checksum by name.)
    let needed = modules::with_needs_686(&["ahci", "sd_mod", "sr_mod", "crc32c_generic", "ext4"]).expect("modules");
    let guest = |name: &str, script: &str| guest(Linux::i686_with, name, &needed, "", &format!("{script}\n{AHCI}"));
    let (write, read) = (guest("ahci-write.cpio", WRITE), guest("ahci-read.cpio", READ));
    let drive = format!("if=none,id=d,file={},format=raw,cache=none", image.display());
    let disc = format!("if=none,id=c,file={},format=raw,media=cdrom", cd.display());
    let units = ["-device", "ide-hd,drive=d,bus=a.0", "-drive", &disc, "-device", "ide-cd,drive=c,bus=a.2"];
    let first = run(&write, &[&["-drive", &drive, "-device", "ahci,id=a"], &units[..]].concat());
    assert_eq!((value(&first, "MODEL"), value(&first, "CD")), ("QEMU HARDDISK", "disc"));
    assert!(value(&first, "DEPTH").starts_with("32"), "{first}");
    let sum = value(&first, "SUM").to_owned();
    assert_eq!(value(&first, "AGAIN"), sum);
    let through = drive.replace("cache=none", "cache=writethrough");
    let second = run(&read, &[&["-smp", "2", "-drive", &through, "-device", "ahci,id=a"], &units[..]].concat());
    assert_eq!((value(&second, "SUM"), value(&second, "FILES")), (sum.as_str(), "100 42"));
    assert!(value(&second, "MODE").contains("DMA"), "{second}");
}
