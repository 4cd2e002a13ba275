//! `-kernel`, `-initrd`, `-append` on their way to the guest: files read, plan made, items and option ROM published.

use super::kernel::{self, Image, KernelConfig};
use crate::nvram::{fw_cfg::FwCfg, fw_cfg_data::Data};
use hw_core::{Machine, loader::Roms};
use qom::{Error, Result};
use std::{fs::File, path::Path};

/// Low memory that belongs to the ACPI tables of firmware.
const ACPI_DATA: u64 = 0x2_0000 + 0x8000;
const LIMIT: u64 = 2 << 30;

/// A regular file is read again when the guest wants it; what can be read once only (a pipe) stays in memory.
fn read(what: &str, name: &str) -> Result<Image> {
    let fail = |e: &dyn std::fmt::Display| Error::generic(format!("could not open {what} file '{name}': {e}"));
    let mut image = Image::from(Roms::read_file(Path::new(name), LIMIT).map_err(|e| fail(&e))?);
    // Looked at before it is opened: opening a pipe a second time would wait for a second writer.
    let regular = std::fs::metadata(name).is_ok_and(|m| m.is_file());
    if let Some(file) = regular.then(|| File::open(name).ok()).flatten() {
        image.data = Data::file(file, image.bytes.len());
    }
    Ok(image)
}

/// Modules of multiboot are separated by commas, a doubled one stands for itself; each may have arguments after a space.
fn modules(list: &str) -> Vec<(String, String)> {
    let protected = list.replace(",,", "\0");
    let each = protected.split(',').map(|m| m.replace('\0', ","));
    each.map(|m| (m.split(' ').next().unwrap_or_default().to_owned(), m)).collect()
}

/// Loads the machine's kernel.
///
/// # Errors
/// A file cannot be read, is of no known kind, or does not fit.
pub fn load(machine: &Machine, fw_cfg: &FwCfg, below_4g: u64) -> Result<()> {
    let name = machine.kernel.get();
    let kernel = read("kernel", &name)?;
    let list = machine.initrd.get();
    let initrd = match list.is_empty() {
        true => vec![],
        false => {
            let one = vec![(list.clone(), String::new())];
            let files = if kernel::is_multiboot(&kernel.bytes) { modules(&list) } else { one };
            files.into_iter().map(|(file, args)| Ok((read("initrd", &file)?, args))).collect::<Result<_>>()?
        }
    };
    let config = KernelConfig {
        kernel: kernel.clone(),
        initrd,
        cmdline: machine.append.get(),
        below_4g,
        acpi_data_size: ACPI_DATA,
    };
    let plan = kernel::plan(&config).map_err(|e| Error::generic(format!("kernel '{name}': {e}")))?;
    for (key, data) in plan.items {
        fw_cfg.set(key, data);
    }
    for (i, (address, data)) in plan.load.iter().enumerate() {
        machine.core().roms.add_blob(&format!("kernel segment {i}"), data, *address)?;
    }
    let rom = plan.rom.assemble().map_err(|e| Error::generic(format!("option ROM: {e}")))?;
    fw_cfg.add_file(&format!("genroms/{}", plan.rom.file_name()), rom)?;
    fw_cfg.add_file("etc/boot/kernel", kernel.data)?;
    // Strict: nothing else is booted if this fails.
    let end = if machine.boot().strict == Some(true) { "\nHALT\0" } else { "\0" };
    let order = format!("/rom@genroms/{}{end}", plan.rom.file_name());
    fw_cfg.add_file("bootorder", order.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_separated_by_single_commas() {
        let got = modules("a x=1,b,,c y");
        assert_eq!(got, [("a".into(), "a x=1".into()), ("b,c".into(), "b,c y".into())]);
    }
}
