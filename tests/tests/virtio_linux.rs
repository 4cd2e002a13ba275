//! Linux's own drivers on virtio devices.

use tests::guest::Linux;
use tests::modules::{self, empty, run, value};

/// A guest that loads drivers and then runs `script`.
fn linux(name: &str, drivers: &[&str], script: &str) -> Linux {
    let needed = modules::with_needs(&[&["virtio_pci"], drivers].concat()).expect("modules");
    let files: Vec<(&str, &[u8])> = needed.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    let script = format!(
        "{}\n{script}\ndmesg | grep -iE 'virtio|vd[a-z]|scsi|nvme' | grep -v Kernel\n",
        modules::commands(&needed)
    );
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
    // By a ring where the host gives one.
    let aio = tests::images::ways().expect("a way").pop().unwrap_or_default();
    let drive = format!("file={},format=raw,cache=none,aio={aio},if=none,id=d", image.display());
    let disk = "virtio-blk-pci,drive=d,serial=abc,iothread=io";
    let first = run(&write, &["-smp", "2", "-object", "iothread,id=io", "-drive", &drive, "-device", disk]);
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

/// SeaBIOS keeps memory at the end of RAM for each disk it finds, where the board had meant to put the initrd.
#[test]
fn an_initrd_is_whole_beside_four_disks() {
    let mut random = tests::contract::Rng::new(4);
    let blob: Vec<u8> = (0..1 << 20).flat_map(|_| random.bits().to_le_bytes()).collect();
    let needed = modules::with_needs(&["virtio_pci", "virtio_blk"]).expect("modules");
    let mut files: Vec<(&str, &[u8])> = needed.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    files.push(("zz-blob", &blob));
    let script = "for i in $(seq 50); do [ -b /dev/vdd ] && break; sleep 0.1; done\n\
        echo SUM $(md5sum < /bin/zz-blob)\necho DISKS $(ls /dev/vd? 2>/dev/null | wc -l)";
    let script = format!("{}\n{script}", modules::commands(&needed));
    let linux = Linux::amd64_with("four-disks.cpio", &script, &files).expect("the packages");
    let alone = run(&linux, &[]);
    let disks: Vec<[String; 2]> = (0..4)
        .map(|n| ["-drive".to_owned(), format!("if=virtio,driver=null-co,read-zeroes=on,size=64M,id=d{n}")])
        .collect();
    let beside = run(&linux, &disks.iter().flatten().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((value(&alone, "DISKS"), value(&beside, "DISKS")), ("0", "4"));
    assert_eq!(value(&alone, "SUM"), value(&beside, "SUM"));
}

/// Bytes of an ISO file system of one file, `A.TXT`, which says `hello`. Source: ECMA-119 §8.4, §9.1.
fn iso() -> Vec<u8> {
    const SECTOR: usize = 2048;
    let both = |n: u32| [n.to_le_bytes(), n.to_be_bytes()].concat();
    let both16 = |n: u16| [n.to_le_bytes(), n.to_be_bytes()].concat();
    let record = |sector: u32, len: u32, flags: u8, name: &[u8]| {
        let size = (33 + name.len()).next_multiple_of(2);
        let mut r = [&[size as u8, 0][..], &both(sector), &both(len), &[126, 1, 1, 0, 0, 0, 0, flags, 0, 0]].concat();
        r.extend(both16(1));
        r.push(name.len() as u8);
        r.extend(name);
        r.resize(size, 0);
        r
    };
    let mut iso = vec![0; 22 * SECTOR];
    let mut put = |at: usize, bytes: &[u8]| iso[at..at + bytes.len()].copy_from_slice(bytes);
    let volume = 16 * SECTOR;
    put(volume, b"\x01CD001\x01");
    put(volume + 8, &[b' '; 64]);
    put(volume + 80, &both(22));
    put(volume + 120, &[both16(1), both16(1), both16(SECTOR as u16), both(10)].concat());
    put(volume + 140, &18u32.to_le_bytes());
    put(volume + 148, &19u32.to_be_bytes());
    put(volume + 156, &record(20, SECTOR as u32, 2, &[0]));
    put(volume + 881, &[1]);
    put(17 * SECTOR, b"\xffCD001\x01");
    put(18 * SECTOR, &[1, 0, 20, 0, 0, 0, 1, 0, 0, 0]);
    put(19 * SECTOR, &[1, 0, 0, 0, 0, 20, 0, 1, 0, 0]);
    let entries = [record(20, 2048, 2, &[0]), record(20, 2048, 2, &[1]), record(21, 6, 0, b"A.TXT;1")].concat();
    put(20 * SECTOR, &entries);
    put(21 * SECTOR, b"hello\n");
    iso
}

#[test]
fn linux_mounts_disks_and_cds_on_scsi() {
    let dir = tempfile::tempdir().unwrap();
    let (image, cd) = (dir.path().join("d"), dir.path().join("cd"));
    empty(&image, 64 << 20);
    std::fs::write(&cd, iso()).unwrap();
    let drivers = ["virtio_scsi", "sd_mod", "sr_mod", "isofs", "ext4"];
    let on_scsi = |script: &str| script.replace("/dev/vda", "/dev/sda").replace("echo SERIAL", "echo UNIT");
    let write = "\
        echo MODEL $(cat /sys/block/sda/device/model)\necho SERIAL $(cat /sys/block/sda/device/vpd_pg80 | tail -c 3)\n\
        echo CACHE $(cat /sys/block/sda/queue/write_cache)\necho DISCARD $(cat /sys/block/sda/queue/discard_granularity)\n\
        for i in $(seq 100); do [ -b /dev/sr0 ] && break; sleep 0.1; done\n\
        mkdir /cd; mount -t iso9660 -o ro /dev/sr0 /cd || echo NO cd\necho CD $(cat /cd/a.txt)\numount /cd";
    let write = format!("{}\n{write}", on_scsi(WRITE).replace("/sys/block/vda", "/sys/block/sda"));
    let read = on_scsi(READ);
    let (write, read) = (linux("scsi-write.cpio", &drivers, &write), linux("scsi-read.cpio", &drivers, &read));
    let drive = format!("file={},format=raw,cache=none,if=none,id=d,discard=unmap", image.display());
    let cd = format!("file={},format=raw,if=none,id=c,media=cdrom", cd.display());
    let units = ["-device", "scsi-hd,drive=d,serial=abc,lun=3", "-drive", &cd, "-device", "scsi-cd,drive=c"];
    let adapter =
        ["-smp", "2", "-object", "iothread,id=io", "-drive", &drive, "-device", "virtio-scsi-pci,iothread=io"];
    let first = run(&write, &[&adapter[..], &units].concat());
    assert_eq!(
        (value(&first, "MODEL"), value(&first, "SERIAL"), value(&first, "CD")),
        ("QEMU HARDDISK", "abc", "hello")
    );
    assert_eq!((value(&first, "CACHE"), value(&first, "DISCARD")), ("write back", "4096"));
    let sum = value(&first, "SUM").to_owned();
    assert_eq!(value(&first, "AGAIN"), sum);
    let adapter = ["-drive", &drive.replace("cache=none", "cache=writethrough"), "-device"];
    let device = "virtio-scsi-pci,disable-modern=on,vectors=0,event_idx=off,indirect_desc=off";
    let second = run(&read, &[&adapter[..], &[device, "-device", "scsi-hd,drive=d"]].concat());
    assert_eq!((value(&second, "SUM"), value(&second, "FILES")), (sum.as_str(), "100 42"));
}

#[test]
fn linux_mounts_an_nvme_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("d");
    empty(&image, 64 << 20);
    let on_nvme =
        |script: &str| script.replace("/dev/vda", "/dev/nvme0n1").replace("/sys/block/vda", "/sys/block/nvme0n1");
    let write = on_nvme(WRITE).replace("nvme0n1/serial", "nvme0n1/device/serial")
        + "\necho MODEL $(cat /sys/block/nvme0n1/device/model)\necho SIZE $(cat /sys/block/nvme0n1/size)";
    let (write, read) =
        (linux("nvme-write.cpio", &["ext4"], &write), linux("nvme-read.cpio", &["ext4"], &on_nvme(READ)));
    let drive = format!("file={},format=raw,cache=none,if=none,id=d,discard=unmap", image.display());
    let first = run(&write, &["-smp", "2", "-drive", &drive, "-device", "nvme,drive=d,serial=abc"]);
    assert_eq!((value(&first, "SERIAL"), value(&first, "QUEUES")), ("abc", "2"));
    assert_eq!((value(&first, "MODEL"), value(&first, "SIZE")), ("QEMU NVMe Ctrl", "131072"));
    let sum = value(&first, "SUM").to_owned();
    assert_eq!(value(&first, "AGAIN"), sum);
    // A namespace of its own, few queues, interrupts of another base address
    let devices =
        ["-device", "nvme,serial=x,max_ioqpairs=1,msix-exclusive-bar=on,mdts=1", "-device", "nvme-ns,drive=d"];
    let second = run(
        &read,
        &[&["-drive", &drive.replace("none", "writethrough").replace("if=writethrough", "if=none")][..], &devices]
            .concat(),
    );
    assert_eq!((value(&second, "SUM"), value(&second, "FILES")), (sum.as_str(), "100 42"));
}
