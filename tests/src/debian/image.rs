//! A disk with Debian on it, as after an installation: one partition, ext4, GRUB. `mmdebstrap` installs the packages, with the mirror
//! and release of this machine's apt; `finish.sh` is all that is put in by us. No loop devices: `mke2fs` fills the file system from the
//! folder, the master boot record and what follows it are written here, as `grub-bios-setup` would.
//! Source: GRUB's manual, "BIOS installation"; the partition table as of DOS 3.3.

use crate::packages;
use anyhow::{Context, Result, bail, ensure};
use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What is installed beside the essential packages. The kernel is the one for all hardware.
const PACKAGES: &str = "linux-image-amd64,initramfs-tools,zstd,systemd-sysv,systemd-resolved,udev,dbus,kmod,iproute2,\
    iputils-ping,wget,pciutils,grub-pc-bin,grub2-common";
/// What is done to them.
const FINISH: &str = include_str!("finish.sh");
/// What is done before the kernel is installed.
const BEFORE: &str =
    r#"mkdir -p "$1/etc/initramfs-tools/conf.d" && echo COMPRESSLEVEL=1 > "$1/etc/initramfs-tools/conf.d/level""#;
const SECTOR: u64 = 512;
/// Where the partition begins, in sectors; GRUB's core lies before it.
const FIRST: u64 = 2048;
/// The partition's size in sectors: 4 GiB, of which Debian takes one.
const SECTORS: u64 = 4 << 21;
/// Byte at which the file system of [`image`] begins.
pub const FILE_SYSTEM: u64 = FIRST * SECTOR;

/// The host's apt settings that hold in the guest too: proxies, and whether a mirror's dates are looked at.
const SETTINGS: [&str; 4] =
    ["Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date"];

/// A release and where it is found.
#[derive(Hash)]
struct Source {
    release: String,
    /// Lines of `sources.list`.
    lines: Vec<String>,
    /// Lines of `apt.conf`.
    settings: String,
}

fn output(cmd: &mut Command) -> Result<String> {
    let out = cmd.stdin(Stdio::null()).output().with_context(|| format!("cannot run {cmd:?}"))?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

impl Source {
    /// What this machine's apt is configured for.
    fn of_host() -> Result<Source> {
        let format = ["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"];
        let text = output(Command::new("apt-get").args(format))?;
        let mut lines = vec![];
        let mut releases: BTreeMap<usize, String> = BTreeMap::new();
        for words in text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()) {
            let [uri, release, "main"] = words[..] else { continue };
            let folder = uri.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let line = format!("deb {uri} {release} main");
            if !["debian", "debian-security"].contains(&folder) || lines.contains(&line) {
                continue;
            }
            if folder == "debian" {
                releases.insert(release.len(), release.to_owned());
            }
            lines.push(line);
        }
        // `bookworm`, not `bookworm-updates`
        let release = releases.into_values().next();
        let release =
            release.context("apt has no Debian mirror on this machine, and the image is made of Debian's packages")?;
        let mut settings = String::new();
        for key in SETTINGS {
            let value = output(Command::new("apt-config").args(["shell", "VALUE", key]))?;
            if let Some(value) = value.trim().strip_prefix("VALUE='").and_then(|v| v.strip_suffix('\'')) {
                // The guest reaches what listens on the host's own address by the gateway's.
                let value = value.replace("//127.0.0.1:", "//10.0.2.2:").replace("//localhost:", "//10.0.2.2:");
                settings += &format!("{key} \"{value}\";\n");
            }
        }
        Ok(Source { release, lines, settings })
    }
}

fn uuid() -> Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid").context("a random name for the file system")?;
    Ok(text.trim().to_owned())
}

/// The image, raw; made when it is not there yet, or when what it is made of has changed. It is not to be written to.
///
/// # Errors
/// A program, the packages or the rights to install them into a folder are missing; which, is said.
pub fn image() -> Result<PathBuf> {
    let source = Source::of_host()?;
    let mut hasher = DefaultHasher::new();
    (PACKAGES, BEFORE, FINISH, SECTORS, &source).hash(&mut hasher);
    let folder = packages::target_dir().join("images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("cannot lock target/images")?;
    let path = folder.join(format!("debian-{}-{:08x}.raw", source.release, hasher.finish() as u32));
    if !path.exists() {
        let part = path.with_extension("part");
        build(&source, &part).context("a Debian image cannot be made here")?;
        // Those of other recipes are of no use any more; a demo's disk is its user's.
        for old in fs::read_dir(&folder)?.filter_map(|e| Some(e.ok()?.path())) {
            if old.extension().is_some_and(|e| e == "raw") {
                fs::remove_file(old)?;
            }
        }
        fs::rename(&part, &path)?;
    }
    Ok(path)
}

fn build(source: &Source, to: &Path) -> Result<()> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let there = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    for (tool, package) in [("perl", "perl"), ("mke2fs", "e2fsprogs"), ("mount", "mount"), ("tar", "tar")] {
        ensure!(there(tool), "'{tool}' is not on this machine (package {package})");
    }
    let root = fs::metadata("/proc/self").context("who we are")?.uid() == 0;
    ensure!(
        root || there("newuidmap") || there("fakechroot") && there("fakeroot"),
        "without root it takes user namespaces with 'newuidmap' (package uidmap) and a line for you in /etc/subuid and \
         /etc/subgid, or 'fakechroot' and 'fakeroot' (the packages of these names)"
    );
    let log = to.with_extension("log");
    let (release, shown) = (&source.release, log.display());
    eprintln!(
        "debian: installing {release} into an image, once; this takes some minutes (what is done stands in {shown})"
    );
    // In the system's own folder for temporary files: what is root in a user namespace reaches that, and is nobody in ours.
    let folder = tempfile::tempdir().context("a folder for the system's files")?;
    let out = folder.path().join("out");
    fs::create_dir(&out)?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
    fs::set_permissions(&out, Permissions::from_mode(0o777))?;
    let values = [
        ("out", out.display().to_string()),
        ("uuid", uuid()?),
        ("machine", uuid()?.replace('-', "")),
        ("size", (SECTORS * SECTOR).to_string()),
        ("settings", source.settings.clone()),
    ];
    let values: String =
        values.iter().map(|(name, value)| format!("{name}='{}'\n", value.replace('\'', "'\\''"))).collect();
    let mut cmd = Command::new("perl");
    cmd.arg(packages::mmdebstrap()?).args(["--variant=minbase", "--format=null", "--architectures=amd64"]);
    cmd.arg(format!("--include={PACKAGES}")).arg("--aptopt=Acquire::Languages \"none\"");
    // Whether what is made here outlives the host's next crash does not matter, nor how small the initramfs is.
    cmd.arg("--dpkgopt=force-unsafe-io").arg(format!("--essential-hook={BEFORE}"));
    cmd.arg(format!("--customize-hook={values}{FINISH}")).args([&source.release, "/dev/null"]).args(&source.lines);
    let (file, copy) = (File::create(&log)?, File::options().append(true).open(&log)?);
    let status = cmd.env("PATH", path).stdin(Stdio::null()).stdout(file).stderr(copy).status();
    let status = status.context("cannot run mmdebstrap")?;
    if !status.success() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let errors: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("E: ")).collect();
        bail!("mmdebstrap ends with {status}: {} (all it said is in {})", errors.join(" / "), log.display());
    }
    let boot = fs::read(out.join("boot.img")).context("GRUB's boot sector")?;
    let core = fs::read(out.join("core.img")).context("GRUB's core")?;
    let mut disk = File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
    disk.set_len(FILE_SYSTEM + SECTORS * SECTOR)?;
    disk.write_all(&boot_sector(&boot)?)?;
    ensure!(core.len() as u64 <= (FIRST - 1) * SECTOR, "GRUB's core has {} bytes", core.len());
    disk.write_all(&core)?;
    copy_data(&mut File::open(out.join("system")).context("the file system")?, &mut disk, FILE_SYSTEM)?;
    disk.sync_all().context("writing the image")?;
    fs::remove_file(log).ok();
    Ok(())
}

/// The master boot record: GRUB's code, which loads the sector behind it, and one active partition.
fn boot_sector(boot: &[u8]) -> Result<[u8; SECTOR as usize]> {
    let mut sector = [0; SECTOR as usize];
    let code = boot.get(..440).context("GRUB's boot sector is too short")?;
    sector[..440].copy_from_slice(code);
    // (Cylinder, head and sector as for what lies beyond their reach: what boots here reads by sector number.)
    let (active, linux, beyond) = (0x80, 0x83, [0xfe, 0xff, 0xff]);
    sector[446] = active;
    sector[447..450].copy_from_slice(&beyond);
    sector[450] = linux;
    sector[451..454].copy_from_slice(&beyond);
    sector[454..458].copy_from_slice(&u32::try_from(FIRST)?.to_le_bytes());
    sector[458..462].copy_from_slice(&u32::try_from(SECTORS)?.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    Ok(sector)
}

/// Copies what is not zero to `at` of a file that is empty there.
fn copy_data(from: &mut File, to: &mut File, at: u64) -> Result<()> {
    let (mut block, mut offset) = (vec![0; 1 << 16], 0);
    loop {
        let mut have = 0;
        while have < block.len() {
            match from.read(&mut block[have..])? {
                0 => break,
                n => have += n,
            }
        }
        if have == 0 {
            return Ok(());
        }
        if block[..have].iter().any(|b| *b != 0) {
            to.seek(SeekFrom::Start(at + offset))?;
            to.write_all(&block[..have])?;
        }
        offset += have as u64;
    }
}

/// A copy of an image in which what is zero takes no room.
///
/// # Errors
/// A file cannot be read or written.
pub fn sparse_copy(from: &Path, to: &Path) -> Result<()> {
    let (mut source, mut copy) = (File::open(from)?, File::create(to)?);
    copy.set_len(source.metadata()?.len())?;
    copy_data(&mut source, &mut copy, 0).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_zero_takes_no_room_in_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        let mut bytes = vec![0; 3 << 20];
        bytes[1 << 20] = 7;
        bytes.extend([1, 2, 3]);
        fs::write(&from, &bytes).unwrap();
        sparse_copy(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), bytes);
        assert!(fs::metadata(&to).unwrap().blocks() * 512 <= 1 << 18);
    }

    #[test]
    fn the_boot_record_has_one_active_partition() {
        let sector = boot_sector(&[0xeb; 512]).unwrap();
        assert_eq!((sector[0], sector[439], sector[440], sector[446], sector[450]), (0xeb, 0xeb, 0, 0x80, 0x83));
        assert_eq!(sector[454..462], [0, 8, 0, 0, 0, 0, 0x80, 0]);
        assert!(boot_sector(&[0; 100]).is_err());
    }
}
