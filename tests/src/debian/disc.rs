//! An installation disc made by `grub-mkrescue`: it boots with GRUB, whose first entry installs a small system, busybox under Debian's
//! kernel, on an empty disk, unattended; the second one only says that it was chosen.

use crate::{
    initramfs::{self, Init},
    modules, packages,
    tools::Tools,
};
use anyhow::{Context, Result};
use std::{fs, path::Path};

const INSTALL: &str = include_str!("install.sh");
/// GRUB on the serial line and the screen.
pub const BOTH_CONSOLES: &str =
    "serial --unit=0 --speed=115200\nterminal_input serial console\nterminal_output serial console\n";
/// What the second entry of a menu of ours says.
pub const CHOSEN: &str = "CHOSEN BY HAND";

/// The entry that only says something.
fn hand_entry() -> String {
    format!("menuentry 'Choose by hand' {{\n    echo '{CHOSEN}'\n    sleep 1000\n}}\n")
}

/// A menu of two entries that waits for ever.
pub fn menu() -> String {
    format!("{BOTH_CONSOLES}set timeout=-1\nmenuentry 'Do nothing' {{\n    sleep 1000\n}}\n{}", hand_entry())
}

/// GRUB's core for a disk of ours: it looks for its configuration in `/boot/grub` of the partition or disk `place` it was loaded from.
///
/// # Errors
/// `grub-mkimage` fails.
pub fn core(tools: &Tools, place: &str, modules: &[&str], to: &Path) -> Result<()> {
    let mut cmd = tools.command("grub-mkimage");
    cmd.arg("-d").arg(tools.grub()).args(["-O", "i386-pc", "-p", &format!("{place}/boot/grub"), "-o"]).arg(to);
    packages::run("grub-mkimage", cmd.args(["biosdisk", "normal", "serial", "terminal", "echo", "sleep"]).args(modules))
        .map(drop)
}

/// The commands of an initramfs that load `modules`.
fn files(modules: Vec<(String, Vec<u8>)>) -> (String, Vec<(String, Vec<u8>)>) {
    let lines = modules.iter().map(|(name, _)| format!("/bin/busybox insmod /lib/{name}\n")).collect();
    (lines, modules.into_iter().map(|(name, data)| (format!("lib/{name}"), data)).collect())
}

/// The system that is installed: an archive of its files.
fn system(to: &Path) -> Result<()> {
    let busybox = fs::read(packages::busybox("amd64")?)?;
    let (load, mut first) = files(modules::with_needs(&["virtio_pci", "virtio_blk", "ext4"])?);
    let init = format!(
        "#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs dev /dev\n{load}/bin/busybox mkdir /disk\n\
         for i in 1 2 3 4 5 6 7 8 9; do /bin/busybox mount -t ext4 /dev/vda1 /disk && break; /bin/busybox sleep 1; done\n\
         exec /bin/busybox switch_root /disk /sbin/init\n"
    );
    first.extend([("init".to_owned(), init.into_bytes()), ("bin/busybox".to_owned(), busybox.clone())]);
    let initrd = to.with_extension("initrd");
    initramfs::write_files(&initrd, &first)?;
    let start = "#!/bin/sh\n/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin /proc /sys /dev\n/bin/busybox --install -s\n\
        mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sysfs /sys\n\
        echo started >> /boot/starts\necho \"SYSTEM STARTED $(wc -l < /boot/starts) FROM $(sed 's/ .*//' /proc/cmdline)\"\n";
    let tab = "::sysinit:/etc/start\nttyS0::respawn:-/bin/sh\n::shutdown:/bin/umount -a -r\n";
    let menu = format!(
        "{BOTH_CONSOLES}set timeout=0\nmenuentry 'System' {{\n    linux /boot/vmlinuz root=/dev/vda1 console=ttyS0 quiet\n    \
         initrd /boot/initrd\n}}\n"
    );
    let files = [
        ("bin/busybox", busybox.clone()),
        ("bin/sh", busybox.clone()),
        ("sbin/init", busybox),
        ("etc/start", start.into()),
        ("etc/inittab", tab.into()),
        ("boot/vmlinuz", fs::read(packages::kernel()?)?),
        ("boot/initrd", fs::read(&initrd)?),
        ("boot/grub/grub.cfg", menu.into_bytes()),
    ];
    fs::remove_file(initrd)?;
    initramfs::write_files(to, &files.map(|(name, data)| (name.to_owned(), data)))
}

/// Makes the disc's image.
///
/// # Errors
/// Packages cannot be fetched, or a program fails.
pub fn disc(tools: &Tools, to: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    fs::create_dir_all(root.join("boot/grub"))?;
    fs::copy(packages::kernel()?, root.join("boot/vmlinuz"))?;
    system(&root.join("system.cpio"))?;
    fs::copy(tools.grub().join("boot.img"), root.join("boot.img"))?;
    core(tools, "(,msdos1)", &["part_msdos", "ext2", "linux"], &root.join("core.img"))?;
    let needed =
        modules::with_needs(&["ata_piix", "sr_mod", "isofs", "virtio_pci", "virtio_blk", "ext4"]).context("modules")?;
    let programs: Vec<(&str, &[u8])> = needed.iter().map(|(n, d)| (n.as_str(), d.as_slice())).collect();
    let script = format!("{}{INSTALL}", modules::commands(&needed));
    initramfs::write(&root.join("boot/initrd"), "amd64", Init::Script(&script), &programs)?;
    let menu = format!(
        "{BOTH_CONSOLES}set timeout=1\nmenuentry 'Install' {{\n    linux /boot/vmlinuz console=ttyS0 quiet\n    \
         initrd /boot/initrd\n}}\n{}",
        hand_entry()
    );
    fs::write(root.join("boot/grub/grub.cfg"), menu)?;
    rescue(tools, root, to)
}

/// A disc of the files in `root`, with GRUB.
///
/// # Errors
/// `grub-mkrescue` fails.
pub fn rescue(tools: &Tools, root: &Path, to: &Path) -> Result<()> {
    let mut cmd = tools.command("grub-mkrescue");
    cmd.arg("-d").arg(tools.grub()).args(["--fonts=", "--themes=", "--locales=", "-o"]).arg(to).arg(root);
    packages::run("grub-mkrescue", &mut cmd).map(drop)
}

/// A floppy of 1.44 MB with a FAT file system, GRUB before it, and [`menu`].
///
/// # Errors
/// A program fails.
pub fn floppy(tools: &Tools, to: &Path) -> Result<()> {
    const SIZE: usize = 1440 << 10;
    let folder = tempfile::tempdir()?;
    let (core_file, config) = (folder.path().join("core.img"), folder.path().join("grub.cfg"));
    core(tools, "(fd0)", &["fat"], &core_file)?;
    let core = fs::read(&core_file)?;
    fs::write(&config, menu())?;
    fs::File::create(to)?.set_len(SIZE as u64)?;
    // The sectors between the boot sector and the file system are GRUB's.
    let reserved = (1 + core.len().div_ceil(512)).to_string();
    packages::run("mformat", tools.command("mformat").args(["-f", "1440", "-R", &reserved, "-i"]).arg(to).arg("::"))?;
    packages::run("mmd", tools.command("mmd").arg("-i").arg(to).args(["::boot", "::boot/grub"]))?;
    packages::run("mcopy", tools.command("mcopy").arg("-i").arg(to).arg(&config).arg("::boot/grub/grub.cfg"))?;
    // The boot sector's code goes around the file system's parameters.
    let boot = fs::read(tools.grub().join("boot.img"))?;
    let mut image = fs::read(to)?;
    image[..3].copy_from_slice(&boot[..3]);
    image[0x5a..510].copy_from_slice(&boot[0x5a..510]);
    image[512..512 + core.len()].copy_from_slice(&core);
    fs::write(to, image).with_context(|| format!("cannot write {}", to.display()))
}
