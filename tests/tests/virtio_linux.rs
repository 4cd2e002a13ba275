//! Linux's own drivers on virtio devices.

use tests::guest::Linux;
use tests::modules::{self, empty, run, value};

/// A guest that loads drivers and then runs `script`.
fn linux(name: &str, drivers: &[&str], script: &str) -> Linux {
    let needed = modules::with_needs(&[&["virtio_pci"], drivers].concat()).expect("modules");
    let files: Vec<(&str, &[u8])> = needed.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    let script =
        format!("{}\n{script}\ndmesg | grep -iE 'virtio|vd[a-z]' | grep -v Kernel\n", modules::commands(&needed));
    Linux::amd64_with(name, &script, &files).expect("the packages")
}

const WRITE: &str = "\
    for i in $(seq 100); do [ -b /dev/vda ] && break; sleep 0.1; done\n\
    echo SERIAL $(cat /sys/block/vda/serial)\necho QUEUES $(ls /sys/block/vda/mq | wc -l)\n\
    mke2fs /dev/vda >/dev/null\n\
    mount -t ext4 /dev/vda /tmp || echo NO mount\n\
    dd if=/dev/urandom of=/tmp/data bs=64k count=200 2>/dev/null\n\
    for i in $(seq 200); do echo $i > /tmp/f$i; done; rm /tmp/f1??\n\
    echo SUM $(md5sum < /tmp/data)\n\
    umount /tmp; echo 3 > /proc/sys/vm/drop_caches; mount -t ext4 /dev/vda /tmp\n\
    echo AGAIN $(md5sum < /tmp/data)\n\
    umount /tmp; sync";
const READ: &str = "\
    for i in $(seq 100); do [ -b /dev/vda ] && break; sleep 0.1; done\n\
    mount -t ext4 /dev/vda /tmp || echo NO mount\n\
    echo SUM $(md5sum < /tmp/data)\necho FILES $(ls /tmp/f* | wc -l) $(cat /tmp/f42)\numount /tmp\n\
    echo FEATURES $(cat /sys/bus/virtio/devices/virtio0/features)\n\
    echo IRQS $(grep -c virtio0 /proc/interrupts)";

#[test]
fn what_linux_writes_to_a_disk_is_there_after_a_reboot() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("d");
    empty(&image, 64 << 20);
    let drivers = ["virtio_blk", "ext4"];
    let (write, read) = (linux("virtio-write.cpio", &drivers, WRITE), linux("virtio-read.cpio", &drivers, READ));
    let drive = format!("file={},format=raw,cache=none,if=none,id=d", image.display());
    let first = run(&write, &["-smp", "2", "-drive", &drive, "-device", "virtio-blk-pci,drive=d,serial=abc"]);
    assert_eq!((value(&first, "SERIAL"), value(&first, "QUEUES")), ("abc", "2"));
    let sum = value(&first, "SUM").to_owned();
    assert_eq!(value(&first, "AGAIN"), sum);
    let again = drive.replace("cache=none", "cache=writethrough");
    // Packed rings, legacy registers, the line instead of messages.
    for device in ["packed=on", "disable-modern=on,vectors=0,event_idx=off,indirect_desc=off"] {
        let device = format!("virtio-blk-pci,drive=d,{device}");
        let second = run(&read, &["-drive", &again, "-device", &device]);
        assert_eq!((value(&second, "SUM"), value(&second, "FILES")), (sum.as_str(), "100 42"), "{device}");
        let features = value(&second, "FEATURES").as_bytes();
        assert_eq!(features[34] == b'1', device.contains("packed"), "{device}");
        assert_eq!(features[32] == b'0', device.contains("disable-modern"), "{device}");
        assert_eq!(value(&second, "IRQS"), if device.contains("vectors=0") { "1" } else { "2" }, "{device}");
    }
}
