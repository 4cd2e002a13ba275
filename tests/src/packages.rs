//! Debian packages that guests and peers come from: downloaded with the apt client into a state directory of our own,
//! unpacked under `target/packages`, never installed and never needing root.
//!
//! Firmware and kernels come from the suites this machine is configured for; the peer emulator comes from the newest
//! suite of the same mirror, with the libraries it was built for, and runs through its own loader.

use anyhow::{Context, Result, bail, ensure};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Which suites a package is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Those of this machine's own apt configuration.
    Own,
    /// Debian's `sid`, from the mirror this machine is configured for.
    Newest,
}

/// What packages are unpacked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// With nothing else.
    Nothing,
    /// With all they depend on.
    All,
    /// With all they depend on but the C library: they run on this machine, with the one it has, as what they start does.
    OnThisHost,
}

/// One apt world: an architecture of a suite, with state, cache and an empty list of installed packages of its own.
#[derive(Debug)]
struct Apt {
    root: PathBuf,
    suite: Suite,
    arch: &'static str,
}

/// The workspace's target directory, where everything fetched is kept.
pub fn target_dir() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from);
    fs::create_dir_all(&dir).ok();
    dir.canonicalize().unwrap_or(dir)
}

fn packages_dir() -> PathBuf {
    target_dir().join("packages")
}

/// Runs a command, its output to a log; the error quotes the end of that log.
pub(crate) fn run(what: &str, cmd: &mut Command) -> Result<String> {
    let out = cmd.stdin(Stdio::null()).output().with_context(|| format!("{what}: cannot run {cmd:?}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        let err = String::from_utf8_lossy(&out.stderr);
        let tail: Vec<&str> = err.lines().rev().take(5).collect();
        bail!("{what} failed ({}): {}", out.status, tail.into_iter().rev().collect::<Vec<_>>().join(" / "));
    }
    Ok(text)
}

impl Apt {
    fn new(suite: Suite, arch: &'static str) -> Result<Apt> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
            let found =
                Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
            ensure!(
                found,
                "'{tool}' is not on this machine: guests are fetched on Debian-like systems (packages apt, dpkg)"
            );
        }
        let name = if suite == Suite::Own { "own" } else { "newest" };
        let apt = Apt { root: packages_dir().join(format!("apt-{name}-{arch}")), suite, arch };
        for dir in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.root.join(dir)).with_context(|| format!("cannot create {}", apt.root.display()))?;
        }
        fs::write(apt.root.join("status"), "")?;
        if suite == Suite::Newest {
            fs::write(apt.root.join("sources.list"), newest_source()?)?;
        }
        Ok(apt)
    }

    fn command(&self, tool: &str) -> Command {
        let mut cmd = Command::new(tool);
        let mut set = |key: &str, value: OsString| {
            let mut pair = OsString::from(format!("{key}="));
            pair.push(value);
            cmd.arg("-o").arg(pair);
        };
        set("Dir::State", self.root.join("state").into());
        set("Dir::State::status", self.root.join("status").into());
        set("Dir::Cache", self.root.join("cache").into());
        set("APT::Architecture", self.arch.into());
        set("APT::Architectures", self.arch.into());
        // Only the package lists: component metadata and contents are large and not needed.
        for target in ["DEP-11", "DEP-11-icons-small", "DEP-11-icons", "DEP-11-icons-hidpi", "Contents-deb", "CNF"] {
            set(&format!("Acquire::IndexTargets::deb::{target}::DefaultEnabled"), "false".into());
        }
        set("Acquire::Languages", "none".into());
        set("APT::Sandbox::User", "".into());
        if self.suite == Suite::Newest {
            set("Dir::Etc::sourcelist", self.root.join("sources.list").into());
            set("Dir::Etc::sourceparts", "-".into());
        }
        cmd.env("LC_ALL", "C");
        cmd
    }

    /// Refreshes the package lists, at most once a day.
    fn update(&self) -> Result<()> {
        let stamp = self.root.join("updated");
        let age = fs::metadata(&stamp).and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if age.is_some_and(|a| a.as_secs() < 24 * 3600) {
            return Ok(());
        }
        eprintln!("packages: reading the package lists ({})", self.arch);
        // One list of several may be out of step on the mirror: what is found in the others is still signed and good.
        match run("reading the package lists", self.command("apt-get").arg("update")) {
            Ok(_) => fs::write(stamp, "")?,
            Err(e) => eprintln!("packages: {e:#}"),
        }
        Ok(())
    }

    /// The value of a field of a package's record.
    fn field(&self, package: &str, field: &str) -> Result<String> {
        let text = run("asking for a package", self.command("apt-cache").args(["show", "--no-all-versions", package]))?;
        let value = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(": "));
        Ok(value.with_context(|| format!("package {package} has no field {field}"))?.to_owned())
    }

    /// Downloads packages with what they need and unpacks them into `dir`.
    fn unpack(&self, packages: &[String], needs: Needs, dir: &Path) -> Result<()> {
        eprintln!("packages: downloading {}", packages.join(" "));
        let debs = self.root.join("cache/archives");
        let mut cmd = self.command("apt-get");
        if needs == Needs::Nothing {
            cmd.arg("download").current_dir(&debs);
        } else {
            cmd.args(["install", "-y", "--no-install-recommends", "--download-only"]);
        }
        let before = list(&debs)?;
        run("downloading packages", cmd.args(packages))?;
        let fresh: Vec<PathBuf> = list(&debs)?.into_iter().filter(|d| !before.contains(d)).collect();
        ensure!(!fresh.is_empty(), "apt downloaded nothing for {}", packages.join(" "));
        let part = dir.with_extension("part");
        fs::remove_dir_all(&part).ok();
        fs::create_dir_all(&part)?;
        for deb in fresh {
            let name = deb.file_name().unwrap_or_default().to_string_lossy();
            if needs == Needs::OnThisHost && name.starts_with("libc6_") {
                fs::remove_file(&deb)?;
                continue;
            }
            run("unpacking a package", Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&part))?;
            fs::remove_file(deb)?;
        }
        fs::rename(&part, dir).with_context(|| format!("cannot create {}", dir.display()))
    }
}

fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.filter_map(|e| Some(e.ok()?.path()));
    Ok(entries.filter(|p| p.extension().is_some_and(|e| e == "deb")).collect())
}

/// A source line for Debian's newest suite, from the mirror and key of the machine's own sources.
fn newest_source() -> Result<String> {
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    ensure!(Path::new(keyring).exists(), "{keyring} is missing: install debian-archive-keyring");
    let targets = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
        .output()
        .context("apt-get indextargets")?;
    let text = String::from_utf8_lossy(&targets.stdout).into_owned();
    let mirror = text.lines().find(|l| l.trim_end_matches('/').ends_with("/debian"));
    let mirror = mirror.context("no Debian mirror is configured on this machine, the peer emulator comes from one")?;
    Ok(format!("deb [signed-by={keyring}] {mirror} sid main\n"))
}

/// Fetches once: `fill` gets the apt world and the directory to create.
fn once(name: &str, suite: Suite, arch: &'static str, fill: impl FnOnce(&Apt, &Path) -> Result<()>) -> Result<PathBuf> {
    let root = packages_dir();
    fs::create_dir_all(&root)?;
    let dir = root.join(name);
    let lock = fs::File::create(root.join("lock"))?;
    lock.lock().context("cannot lock target/packages")?;
    if !dir.exists() {
        let apt = Apt::new(suite, arch)?;
        apt.update()?;
        fill(&apt, &dir)?;
    }
    Ok(dir)
}

fn plain(name: &str, suite: Suite, arch: &'static str) -> Result<PathBuf> {
    once(&format!("{name}-{arch}"), suite, arch, |apt, dir| apt.unpack(&[name.to_owned()], Needs::Nothing, dir))
}

/// The folder with SeaBIOS (`bios-256k.bin`, `vgabios-stdvga.bin` …).
///
/// # Errors
/// The packages cannot be fetched.
pub fn seabios() -> Result<PathBuf> {
    Ok(plain("seabios", Suite::Own, "amd64")?.join("usr/share/seabios"))
}

/// The folder with the boot ROMs of network cards (`efi-e1000.rom` …).
///
/// # Errors
/// The package cannot be fetched.
pub fn network_roms() -> Result<PathBuf> {
    Ok(plain("ipxe-qemu", Suite::Own, "amd64")?.join("usr/lib/ipxe/qemu"))
}

/// A Linux kernel image: Debian's cloud kernel, Ubuntu's virtual one.
///
/// # Errors
/// The package cannot be fetched.
pub fn kernel() -> Result<PathBuf> {
    let ubuntu = fs::read_to_string("/etc/os-release").is_ok_and(|s| s.lines().any(|l| l == "ID=ubuntu"));
    kernel_of(if ubuntu { "linux-image-virtual" } else { "linux-image-cloud-amd64" }, "amd64")
}

/// Debian's kernel for 32-bit machines with PAE off, `linux-image-686`.
///
/// # Errors
/// The package cannot be fetched.
pub fn kernel_686() -> Result<PathBuf> {
    kernel_of("linux-image-686", "i386")
}

fn kernel_of(meta: &str, arch: &'static str) -> Result<PathBuf> {
    let dir = once(&format!("{meta}-{arch}"), Suite::Own, arch, |apt, dir| {
        let depends = apt.field(meta, "Depends")?;
        let words = depends.split([',', ' ', '|']);
        let image = words
            .into_iter()
            .find(|w| w.strip_prefix("linux-image-").is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit())));
        apt.unpack(
            &[image.with_context(|| format!("{meta} names no image: {depends}"))?.to_owned()],
            Needs::Nothing,
            dir,
        )
    })?;
    let boot = dir.join("boot");
    let images = fs::read_dir(&boot).with_context(|| format!("{} holds no kernel", boot.display()))?;
    let image = images
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz")));
    image.with_context(|| format!("{} holds no kernel", boot.display()))
}

/// A static busybox for a guest of the given Debian architecture.
///
/// # Errors
/// The package cannot be fetched.
pub fn busybox(arch: &'static str) -> Result<PathBuf> {
    let dir = plain("busybox-static", Suite::Own, arch)?;
    let found = ["usr/bin/busybox", "bin/busybox"].iter().map(|p| dir.join(p)).find(|p| p.exists());
    found.context("busybox-static holds no busybox")
}

/// Packages of this machine's suites, unpacked with what they need into a folder called `name`.
///
/// # Errors
/// The packages cannot be fetched.
pub(crate) fn together(name: &str, packages: &[&str], needs: Needs) -> Result<PathBuf> {
    let packages: Vec<String> = packages.iter().map(|p| (*p).to_owned()).collect();
    once(name, Suite::Own, "amd64", |apt, dir| apt.unpack(&packages, needs, dir))
}

/// The programs of the peer bench with their libraries: the folder they are unpacked to.
///
/// # Errors
/// The packages cannot be fetched.
pub fn bench_programs() -> Result<PathBuf> {
    let names =
        ["coreutils", "gzip", "xz-utils", "zstd", "7zip", "sqlite3", "python3-minimal", "mawk", "openssl", "tcc"];
    together("bench-programs", &names, Needs::All)
}

/// The program that installs a Debian into a folder, `mmdebstrap`, a Perl script.
///
/// # Errors
/// The package cannot be fetched.
pub fn mmdebstrap() -> Result<PathBuf> {
    Ok(plain("mmdebstrap", Suite::Own, "amd64")?.join("usr/bin/mmdebstrap"))
}

/// Debian's installer for the network, of this machine's release: the folder with `linux` and `initrd.gz`.
///
/// # Errors
/// The package cannot be fetched.
pub fn installer() -> Result<PathBuf> {
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let release = system.lines().find_map(|l| l.strip_prefix("VERSION_ID=")).unwrap_or("12").trim_matches('"');
    let images = plain(&format!("debian-installer-{release}-netboot-amd64"), Suite::Own, "amd64")?
        .join(format!("usr/lib/debian-installer/images/{release}/amd64/text/debian-installer/amd64"));
    ensure!(images.join("linux").is_file(), "{} holds no installer", images.display());
    Ok(images)
}

/// The user-mode network of the host, `passt`, which runs with this machine's C library.
///
/// # Errors
/// The package cannot be fetched.
pub fn passt() -> Result<PathBuf> {
    Ok(plain("passt", Suite::Own, "amd64")?.join("usr/bin/passt"))
}

/// The ACPI compiler and disassembler, `iasl`.
///
/// # Errors
/// The package cannot be fetched.
pub fn iasl() -> Result<PathBuf> {
    Ok(plain("acpica-tools", Suite::Own, "amd64")?.join("usr/bin/iasl"))
}

/// The peer: QEMU from the newest suite, run through its own loader and libraries.
#[derive(Clone, Debug)]
pub struct Peer {
    root: PathBuf,
}

/// Fetches the peer emulator.
///
/// # Errors
/// The packages cannot be fetched.
pub fn peer() -> Result<Peer> {
    let names = ["qemu-system-x86", "qemu-utils", "seabios"].map(str::to_owned);
    Ok(Peer { root: once("qemu-peer", Suite::Newest, "amd64", |apt, dir| apt.unpack(&names, Needs::All, dir))? })
}

impl Peer {
    /// The folders with the peer's firmware, for `-L`.
    pub fn data_folders(&self) -> [PathBuf; 2] {
        ["usr/share/seabios", "usr/share/qemu"].map(|folder| self.root.join(folder))
    }

    /// A command that runs one of the peer's programs, such as `qemu-system-x86_64`, with its data folders.
    pub fn command(&self, program: &str) -> Command {
        let mut cmd = Command::new(self.root.join("usr/lib64/ld-linux-x86-64.so.2"));
        cmd.arg("--library-path").arg(self.root.join("usr/lib/x86_64-linux-gnu"));
        cmd.arg(self.root.join("usr/bin").join(program));
        // Accelerators and many devices are modules, looked for where Debian would have installed them.
        cmd.env("QEMU_MODULE_DIR", self.root.join("usr/lib/x86_64-linux-gnu/qemu"));
        if program.starts_with("qemu-system") {
            for folder in self.data_folders() {
                cmd.arg("-L").arg(folder);
            }
        }
        cmd
    }

    /// The first line of `qemu-system-x86_64 -version`.
    ///
    /// # Errors
    /// The program does not start.
    pub fn version(&self) -> Result<String> {
        let text = run("asking the peer's version", self.command("qemu-system-x86_64").arg("-version"))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}
