//! What the guest starts from.

use super::super::harness::*;
use serde_json::json;
use tests::qmp::Qmp;
use tests::qtest::Qtest;

rows! {
    kernel: ["-kernel", "{dir}/k", "-initrd", "{dir}/i", "-append", "console=x y=z"] |r| {
        fake_kernel(r);
        let mut q = r.qtest();
        let mut item = |key: u16, len: usize| -> Vec<u8> {
            q.out(0x510, 2, key.into());
            (0..len).map(|_| q.inb(0x511)).collect()
        };
        assert_eq!(item(0x15, 14), b"console=x y=z\0", "the command line");
        assert_eq!(item(0x12, 6), b"initrd");
        assert_eq!(item(0x14, 4), 14u32.to_le_bytes(), "its length");
    }
    bios: ["-bios", "{dir}/b"] |r| {
        r.put("b", vec![0x91; 131_072]);
        let mut q = r.pc();
        assert_eq!(q.hmp("xp /1xb 0xfffffff0"), "00000000fffffff0: 0x91\r\n");
        assert_eq!(q.hmp("xp /1xb 0xffff0"), "00000000000ffff0: 0x91\r\n");
    }
    firmware_folder: ["-L", "{dir}"] |r| {
        r.put("bios-256k.bin", vec![0x92; 262_144]);
        let mut q = Qmp::start(&r.with(&["-accel", "qtest", "-vga", "none"]));
        assert_eq!(q.hmp("xp /1xb 0xfffffff0"), "00000000fffffff0: 0x92\r\n");
    }
    boot: ["-boot", "order=dc,once=n,menu=on,splash={dir}/s.bmp,splash-time=1234,reboot-timeout=4321,strict=on"] |r| {
        r.put("s.bmp", bitmap());
        let mut q = r.qtest();
        // Network once: CMOS 3Dh holds the first two devices, 38h the third.
        assert_eq!(cmos(&mut q, 0x3d) & 0xf, 4);
        assert_eq!(fw_cfg(&mut q, "etc/boot-fail-wait").unwrap(), 4321u32.to_le_bytes());
        assert_eq!(fw_cfg(&mut q, "etc/boot-menu-wait").unwrap(), 1234u16.to_le_bytes());
        assert_eq!(fw_cfg(&mut q, "bootsplash.bmp").unwrap(), bitmap());
        let boot = get(&mut r.pc(), "/machine", "boot");
        assert_eq!((&boot["order"], &boot["menu"], &boot["strict"]), (&json!("dc"), &json!(true), &json!(true)), "{boot}");
        // Without a kernel there is nothing to be strict about.
        assert_eq!(fw_cfg(&mut q, "bootorder").unwrap(), b"");
        fake_kernel(r);
        let kernel = r.path("k");
        let kernel = kernel.to_str().unwrap();
        let mut q = Qtest::start(&r.with(&["-L", firmware(), "-kernel", kernel]));
        assert_eq!(fw_cfg(&mut q, "bootorder").unwrap(), b"/rom@genroms/linuxboot_dma.bin\nHALT\0");
        let mut q = Qtest::start(&["-L", firmware(), "-kernel", kernel]);
        assert_eq!(fw_cfg(&mut q, "bootorder").unwrap(), b"/rom@genroms/linuxboot_dma.bin\0");
        let never = Row::new(&["-boot", "reboot-timeout=-1"]);
        assert_eq!(fw_cfg(&mut never.qtest(), "etc/boot-fail-wait").unwrap(), u32::MAX.to_le_bytes());
    }
}
