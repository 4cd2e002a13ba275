//! The guest program, built static, and the initramfs images around it.

use crate::{initramfs, modules, packages};
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Programs of packages, as the guest program calls them.
const PROGRAMS: [&str; 11] =
    ["sha256sum", "md5sum", "gzip", "xz", "zstd", "7zz", "sqlite3", "python3", "mawk", "sort", "openssl"];
/// The compiler, which has a folder of its own beside it.
const COMPILER: &str = "tcc";

/// Builds `bench-guest` for the x86-64 baseline, without shared libraries, and says where it is.
///
/// # Errors
/// It does not build (a static C library is needed: package libc6-dev).
pub fn guest_program() -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let dir = packages::target_dir().join("bench-guest");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let flags = ["-Ctarget-feature=+crt-static", "-Crelocation-model=static", "-Ctarget-cpu=x86-64", "-Cstrip=symbols"];
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "bench-guest", "--target", TARGET, "--target-dir"])
        .arg(&dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("cargo")?;
    ensure!(status.success(), "bench-guest does not build");
    Ok(dir.join(TARGET).join("release/bench-guest"))
}

/// An image with the guest program alone.
///
/// # Errors
/// The file cannot be written.
pub fn small(program: &Path) -> Result<PathBuf> {
    image("bench-small.cpio", vec![("init".to_owned(), fs::read(program)?)])
}

/// An image with the guest program and the packages' programs.
///
/// # Errors
/// A program or one of its libraries is missing, or the file cannot be written.
pub fn full(program: &Path, root: &Path) -> Result<PathBuf> {
    let mut files = BTreeMap::from([("init".to_owned(), fs::read(program)?)]);
    for name in PROGRAMS.iter().chain([&COMPILER]) {
        let places = ["usr/bin", "bin"].map(|d| root.join(d).join(name));
        let path = places.iter().find(|p| p.exists()).with_context(|| format!("the packages hold no {name}"))?;
        files.insert(format!("usr/bin/{name}"), fs::read(path)?);
        for (inside, library) in libraries(root, path)? {
            files.insert(inside, fs::read(library)?);
        }
    }
    // Python's own modules, without those that its start does not need
    let lib = root.join("usr/lib");
    let python = fs::read_dir(&lib)?.filter_map(|e| Some(e.ok()?.path()));
    let python = python.into_iter().find(|p| p.is_dir() && p.join("encodings").is_dir());
    let python = python.context("the packages hold no Python library")?;
    add_folder(root, &python, &mut files)?;
    image("bench-full.cpio", files.into_iter().collect())
}

/// What a guest with drivers loads and does before the first command.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// Kernel modules.
    pub modules: &'a [&'a str],
    /// Shell commands after they are loaded.
    pub script: &'a str,
}

/// An image with the guest program, busybox and drivers of the cloud kernel.
///
/// # Errors
/// A package cannot be fetched, or the file cannot be written.
pub fn with_modules(program: &Path, setup: &Setup<'_>) -> Result<PathBuf> {
    let modules = modules::with_needs(setup.modules)?;
    let load = modules::commands(&modules).replace("|| echo NO", "|| exit 1 #");
    let script = format!("export PATH=/bin\n/bin/busybox --install -s /bin\n{load}{}\n", setup.script);
    let mut files = vec![
        ("init".to_owned(), fs::read(program)?),
        ("bin/busybox".to_owned(), fs::read(packages::busybox("amd64")?)?),
        ("setup.sh".to_owned(), script.into_bytes()),
    ];
    files.extend(modules.into_iter().map(|(name, data)| (format!("bin/{name}"), data)));
    image(setup.name, files)
}

fn image(name: &str, files: Vec<(String, Vec<u8>)>) -> Result<PathBuf> {
    let dir = packages::target_dir().join("guests");
    fs::create_dir_all(&dir)?;
    let (path, part) = (dir.join(name), dir.join(format!("{name}.{}", std::process::id())));
    initramfs::write_files(&part, &files)?;
    fs::rename(&part, &path)?;
    Ok(path)
}

fn add_folder(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            add_folder(root, &path, files)?;
        } else if path.extension().is_some_and(|e| e == "py") && path.exists() {
            files.insert(path.strip_prefix(root)?.to_string_lossy().into_owned(), fs::read(&path)?);
        }
    }
    Ok(())
}

/// Where the unpacked loader looks.
pub fn loader(root: &Path) -> Result<(PathBuf, String)> {
    let places = ["lib64", "usr/lib64"].map(|d| root.join(d).join("ld-linux-x86-64.so.2"));
    let loader = places.into_iter().find(|p| p.exists()).context("the packages hold no loader")?;
    let folders = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|d| root.join(d).display().to_string());
    Ok((loader, folders.join(":")))
}

/// The loader and the shared libraries of a program: path in the guest, file here.
///
/// # Errors
/// One of them is not in the packages.
pub fn libraries(root: &Path, program: &Path) -> Result<Vec<(String, PathBuf)>> {
    let (loader, folders) = loader(root)?;
    let out = Command::new(&loader).args(["--library-path", &folders, "--list"]).arg(program).output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.success(), "{}: {text}{}", program.display(), String::from_utf8_lossy(&out.stderr));
    let mut all = vec![("lib64/ld-linux-x86-64.so.2".to_owned(), loader)];
    for line in text.lines() {
        if let Some((name, path)) = line.trim().split_once(" => ") {
            let path = path.split(" (").next().unwrap_or(path);
            ensure!(Path::new(path).starts_with(root), "{}: {line} is not in the packages", program.display());
            all.push((format!("lib/x86_64-linux-gnu/{}", name.trim()), path.into()));
        }
    }
    Ok(all)
}
