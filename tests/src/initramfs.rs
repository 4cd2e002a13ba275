//! An initramfs made of busybox and a script, for guests that boot to user space.

use crate::packages;
use anyhow::{Context, Result};
use cpio::{NewcBuilder, newc::ModeFileType};
use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// What the guest does once its kernel is up.
#[derive(Clone, Copy, Debug)]
pub enum Init<'a> {
    /// A shell on the serial console; `poweroff` ends the machine.
    Shell,
    /// A shell script, then power-off.
    Script(&'a str),
}

const SETUP: &str = "#!/bin/sh\n\
    mount -t proc proc /proc\nmount -t sysfs sysfs /sys\nmount -t devtmpfs dev /dev 2>/dev/null\n\
    echo 0 > /proc/sys/kernel/printk\n";

/// Writes an initramfs for a guest of Debian architecture `arch` (`amd64`, `i386`) to `path`, with further `programs` in `/bin`.
///
/// # Errors
/// busybox cannot be fetched, or the file cannot be written.
pub fn write(path: &Path, arch: &'static str, init: Init, programs: &[(&str, &[u8])]) -> Result<()> {
    let busybox = fs::read(packages::busybox(arch)?)?;
    let mut archive = Archive { out: Vec::new(), ino: 1 };
    for dir in ["bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "root", "usr", "usr/bin", "usr/sbin"] {
        archive.entry(dir, ModeFileType::Directory, 0o755, &[])?;
    }
    archive.entry("bin/busybox", ModeFileType::Regular, 0o755, &busybox)?;
    archive.entry("bin/sh", ModeFileType::Symlink, 0o777, b"busybox")?;
    for (name, data) in programs {
        archive.entry(&format!("bin/{name}"), ModeFileType::Regular, 0o755, data)?;
    }
    archive.entry("init", ModeFileType::Symlink, 0o777, b"bin/busybox")?;
    let install = "/bin/busybox --install -s\n";
    let (setup, tab) = match init {
        Init::Shell => (
            format!("{SETUP}cat /etc/motd\n"),
            "::sysinit:/etc/rcS\nttyS0::respawn:-/bin/sh\n::shutdown:/bin/umount -a\n",
        ),
        Init::Script(script) => {
            archive.entry("etc/guest.sh", ModeFileType::Regular, 0o755, format!("#!/bin/sh\n{script}\n").as_bytes())?;
            (SETUP.to_owned(), "::sysinit:/etc/rcS\n::wait:/etc/guest.sh\n::once:/bin/busybox poweroff\n")
        }
    };
    let setup = setup.replacen('\n', &format!("\n{install}"), 1);
    archive.entry("etc/rcS", ModeFileType::Regular, 0o755, setup.as_bytes())?;
    archive.entry("etc/inittab", ModeFileType::Regular, 0o644, tab.as_bytes())?;
    archive.entry("etc/motd", ModeFileType::Regular, 0o644, b"\nA shell in the guest; `poweroff` ends it.\n\n")?;
    let data = cpio::newc::trailer(archive.out).context("initramfs")?;
    fs::write(path, data).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes an initramfs of these files alone, all executable: path in the guest, content. The folders around them are made.
///
/// # Errors
/// The file cannot be written.
pub fn write_files(path: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    let mut archive = Archive { out: Vec::new(), ino: 1 };
    let parents = files.iter().flat_map(|(name, _)| Path::new(name).ancestors().skip(1));
    let folders: BTreeSet<&Path> = parents.filter(|p| !p.as_os_str().is_empty()).chain([Path::new("dev")]).collect();
    for folder in folders {
        archive.entry(&folder.to_string_lossy(), ModeFileType::Directory, 0o755, &[])?;
    }
    for (name, data) in files {
        archive.entry(name, ModeFileType::Regular, 0o755, data)?;
    }
    let data = cpio::newc::trailer(archive.out).context("initramfs")?;
    fs::write(path, data).with_context(|| format!("cannot write {}", path.display()))
}

/// [`write()`] into the packages' folder under a name of its own.
///
/// # Errors
/// As for [`write()`].
pub fn cached(name: &str, arch: &'static str, init: Init, programs: &[(&str, &[u8])]) -> Result<PathBuf> {
    let dir = packages::target_dir().join("guests");
    fs::create_dir_all(&dir)?;
    let (path, part) = (dir.join(name), dir.join(format!("{name}.{}", std::process::id())));
    write(&part, arch, init, programs)?;
    fs::rename(&part, &path)?;
    Ok(path)
}

struct Archive {
    out: Vec<u8>,
    ino: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, kind: ModeFileType, mode: u32, data: &[u8]) -> Result<()> {
        let size = u32::try_from(data.len()).context("file too large for an initramfs")?;
        let builder = NewcBuilder::new(name).ino(self.ino).mode(mode).nlink(1).set_mode_file_type(kind);
        self.ino += 1;
        let mut entry = builder.write(&mut self.out, size);
        entry.write_all(data)?;
        entry.finish()?;
        Ok(())
    }
}
