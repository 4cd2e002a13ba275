//! Where firmware files are looked for.

use std::path::PathBuf;

/// Folders of distribution packages: SeaBIOS (`seabios`), what QEMU brings along (`qemu-system-data`), iPXE.
const SYSTEM: [&str; 4] = ["/usr/share/seabios", "/usr/share/qemu", "/usr/lib/ipxe/qemu", "/usr/local/share/qemu"];

/// All folders, best first: `-L`, the system's, the one the demo fetches into.
pub fn folders(given: &[PathBuf]) -> Vec<PathBuf> {
    let demo = std::env::current_exe().ok().and_then(|exe| {
        let target = exe.ancestors().find(|d| d.file_name().is_some_and(|n| n == "target"))?.to_owned();
        Some(target.join("packages/seabios-amd64/usr/share/seabios"))
    });
    given.iter().cloned().chain(SYSTEM.iter().map(PathBuf::from)).chain(demo).collect()
}
