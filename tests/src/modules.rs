//! Guests with kernel modules: which there are, what each needs, in the order they are loaded; and what such a guest says.

use crate::guest::{Guest, Linux};
use crate::packages;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn all(dir: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("{} holds no modules", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            all(&path, found)?;
        } else if let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".ko")) {
            found.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// What the `.modinfo` section says after `depends=`.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|w| w == KEY) else { return vec![] };
    let text: Vec<u8> = module[at + KEY.len()..].iter().copied().take_while(|b| *b != 0).collect();
    String::from_utf8_lossy(&text).split(',').filter(|n| !n.is_empty()).map(|n| n.replace('-', "_")).collect()
}

/// The modules `names` of Debian's cloud kernel with all they need, each as file name and contents, in loading order.
///
/// # Errors
/// The package cannot be fetched, or has no such module.
pub fn with_needs(names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    of_kernel(&packages::kernel()?, names)
}

/// [`with_needs`] of Debian's 32-bit kernel, which has the drivers of real hardware that the cloud kernel leaves out.
///
/// # Errors
/// As [`with_needs`].
pub fn with_needs_686(names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    of_kernel(&packages::kernel_686()?, names)
}

fn of_kernel(kernel: &Path, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let root = kernel.parent().and_then(Path::parent).context("a kernel in /boot")?.join("lib/modules");
    let mut files = BTreeMap::new();
    all(&root, &mut files)?;
    let mut order: Vec<(String, Vec<u8>)> = vec![];
    let built_in = built_in(&root)?;
    for name in names.iter().filter(|n| !built_in.contains(&n.replace('-', "_"))) {
        load(&files, name, &mut order).with_context(|| format!("module {name}"))?;
    }
    Ok(order)
}

/// Modules that are part of the kernel itself.
fn built_in(root: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for version in std::fs::read_dir(root)? {
        let list = std::fs::read_to_string(version?.path().join("modules.builtin"))?;
        let stems = list.lines().filter_map(|l| Path::new(l).file_stem()?.to_str());
        names.extend(stems.map(|n| n.replace('-', "_")));
    }
    Ok(names)
}

fn load(files: &BTreeMap<String, PathBuf>, name: &str, order: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let file = format!("{name}.ko");
    if order.iter().any(|(n, _)| *n == file) {
        return Ok(());
    }
    let path = files.get(name).with_context(|| format!("there is no {name}.ko"))?;
    let data = std::fs::read(path)?;
    for need in depends(&data) {
        load(files, &need, order)?;
    }
    order.push((file, data));
    Ok(())
}

/// The shell commands that load `modules`, which lie in `/bin`.
pub fn commands(modules: &[(String, Vec<u8>)]) -> String {
    modules.iter().fold(String::new(), |t, (name, _)| t + &format!("insmod /bin/{name} || echo NO {name}\n"))
}

/// Longest run of a guest: the tests of a file run at once, on as few as two busy cores.
const LIMIT: Duration = Duration::from_secs(400);

/// Runs a guest to its end; what it said.
///
/// # Panics
/// It does not power off in time, or says that something went wrong: `NO …`, or a driver's or the kernel's own words.
pub fn run(linux: &Linux, args: &[&str]) -> String {
    let mut all = linux.args("");
    all.extend(["-m", "512", "-no-reboot"].iter().chain(args).map(|a| (*a).to_owned()));
    let (code, console) = Guest::ours(&all).finish(LIMIT);
    assert_eq!(code, Some(0), "{console}");
    for bad in ["NO ", "exception", "I/O error", "failed command", "Oops"] {
        assert!(!console.contains(bad), "{bad}: {console}");
    }
    console
}

/// What a guest said behind `key` at the start of a line.
///
/// # Panics
/// There is no such line.
pub fn value<'a>(console: &'a str, key: &str) -> &'a str {
    console.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in {console}")).trim()
}

/// A file with nothing in it.
///
/// # Panics
/// It cannot be made.
pub fn empty(path: &Path, size: u64) {
    std::fs::File::create(path).and_then(|f| f.set_len(size)).expect("an image");
}
