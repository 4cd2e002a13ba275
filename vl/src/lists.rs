//! What `help` instead of a value prints: machines, CPUs, devices, accelerators, objects, character devices.

use crate::monitor::commands::{is_device_property, properties_of};
use crate::options::CommandLine;
use crate::options::chardev::BACKENDS;
use crate::vm::StartError;
use hw_core::{Category, DeviceClass, MachineClass};
use qom::{PropertyInfo, Registry, UserCreatable};
use std::fmt::Write;

/// The list that `line` asks for, if it asks for one.
///
/// # Errors
/// Help about a type that there is not.
pub fn requested(line: &CommandLine) -> Result<Option<String>, StartError> {
    if line.machine.help || line.machine.get("type") == Some("help") {
        return match line.machine.get("type") {
            None | Some("help") => Ok(Some(machines())),
            Some(name) => machine_options(name).map(Some),
        };
    }
    if line.accel_help {
        return Ok(Some(accelerators()));
    }
    if line.cpu.as_ref().is_some_and(|c| matches!(c.value.as_str(), "help" | "?")) {
        return Ok(Some(target_i386::cpu::help()));
    }
    if let Some(d) = line.devices.iter().find(|d| d.value.help) {
        return if d.value.type_name.is_empty() {
            Ok(Some(devices()))
        } else {
            device_options(&d.value.type_name).map(Some)
        };
    }
    if line.devices.iter().any(|d| d.value.type_name == "help") {
        return Ok(Some(devices()));
    }
    if let Some(o) = line.objects.iter().find(|o| o.value.help) {
        return if o.value.type_name.is_empty() {
            Ok(Some(objects()))
        } else {
            object_options(&o.value.type_name).map(Some)
        };
    }
    if line.chardevs.iter().any(|c| c.value.help) {
        return Ok(Some(chardevs()));
    }
    if line.display.as_deref() == Some("help") {
        return Ok(Some("Available display backend types:\nnone\n".into()));
    }
    if line.vga.as_ref().is_some_and(|v| v.value == "help") {
        return Ok(Some("none                 no graphic card\nstd                  standard VGA (default)\n".into()));
    }
    if line.firmware_dirs_help {
        let folders = crate::firmware::folders(&line.firmware_dirs);
        return Ok(Some(folders.iter().fold(String::new(), |t, f| t + &format!("{}\n", f.display()))));
    }
    if line.log_items.iter().any(|i| i == "help") {
        return Ok(Some(crate::log::help()));
    }
    Ok(None)
}

fn machines() -> String {
    let mut out = String::from("Supported machines are:\n");
    for class in hw_core::machine::machines() {
        let Some(c) = class.get::<MachineClass>() else { continue };
        if let Some(alias) = c.alias {
            let _ = writeln!(out, "{alias:<20} {} (alias of {})", c.desc, c.name);
        }
        let default = if c.is_default { " (default)" } else { "" };
        let old = if c.deprecation_reason.is_some() { " (deprecated)" } else { "" };
        let _ = writeln!(out, "{:<20} {}{default}{old}", c.name, c.desc);
    }
    out
}

fn accelerators() -> String {
    hw_core::accel::names().iter().fold("Accelerators supported in QEMU binary:\n".into(), |t, n| t + n + "\n")
}

fn chardevs() -> String {
    BACKENDS.iter().fold("Available chardev backend types: \n".into(), |t, b| t + "  " + b + "\n")
}

const CATEGORIES: [Category; 9] = [
    Category::Bridge,
    Category::Usb,
    Category::Storage,
    Category::Network,
    Category::Input,
    Category::Display,
    Category::Sound,
    Category::Misc,
    Category::Cpu,
];

fn devices() -> String {
    let registry = Registry::global();
    let classes: Vec<_> = registry
        .list(Some("device"), false)
        .into_iter()
        .filter_map(|t| registry.class(t.name()).ok())
        .filter_map(|c| Some((c, c.get::<DeviceClass>()?)))
        .filter(|(_, d)| d.user_creatable)
        .collect();
    let mut out = String::new();
    let mut section = |title: &str, wanted: &dyn Fn(&DeviceClass) -> bool| {
        let mut first = true;
        for (c, d) in classes.iter().filter(|(_, d)| wanted(d)) {
            if std::mem::take(&mut first) {
                let _ = writeln!(out, "{}{title} devices:", if out.is_empty() { "" } else { "\n" });
            }
            let _ = write!(out, "name \"{}\"", c.name());
            if let Some(bus) = d.bus_type {
                let _ = write!(out, ", bus {bus}");
            }
            if let Some(alias) = d.alias {
                let _ = write!(out, ", alias \"{alias}\"");
            }
            if !d.desc.is_empty() {
                let _ = write!(out, ", desc \"{}\"", d.desc);
            }
            out.push('\n');
        }
    };
    for category in CATEGORIES {
        section(category.name(), &|d| d.categories.contains(&category));
    }
    section("Uncategorized", &|d| d.categories.is_empty());
    out
}

fn list(out: &mut String, properties: &[PropertyInfo]) {
    for p in properties {
        let default = p.default.as_ref().map_or_else(String::new, |d| format!(" (default: {})", qom::human(d)));
        let text = p.description.as_deref().map_or_else(String::new, |d| format!(" - {d}"));
        let dash = if text.is_empty() && !default.is_empty() { " - " } else { "" };
        let _ = writeln!(
            out,
            "  {}=<{}>{:pad$}{text}{dash}{default}",
            p.name,
            p.ty,
            "",
            pad = 20usize.saturating_sub(p.name.len() + p.ty.len())
        );
    }
}

fn sorted(type_name: &str) -> Result<Vec<PropertyInfo>, StartError> {
    let mut all = properties_of(type_name).map_err(|e| StartError(e.desc))?;
    all.retain(|p| p.writable && is_device_property(p));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn device_options(driver: &str) -> Result<String, StartError> {
    let class =
        hw_core::qdev::device_class_by_name(driver).map_err(|e| StartError(format!("-device {driver},help: {e}")))?;
    let mut out = format!("{} options:\n", class.name());
    list(&mut out, &sorted(class.name())?);
    Ok(out)
}

fn machine_options(name: &str) -> Result<String, StartError> {
    let class = hw_core::machine::find_machine(name).map_err(|e| StartError(e.to_string()))?;
    let mut out = format!("{} options:\n", class.name());
    list(&mut out, &sorted(class.name())?);
    Ok(out)
}

/// The types that users can create objects of.
pub(crate) fn user_creatable() -> Vec<&'static str> {
    let registry = Registry::global();
    let can = |name: &&str| registry.class(name).is_ok_and(|c| c.is::<dyn UserCreatable>());
    registry.list(None, false).into_iter().map(|t| t.name()).filter(can).collect()
}

fn objects() -> String {
    let mut out = String::from("List of user creatable objects:\n");
    for name in user_creatable() {
        let _ = writeln!(out, "  {name}");
    }
    out
}

fn object_options(name: &str) -> Result<String, StartError> {
    let mut out = format!("{name} options:\n");
    list(&mut out, &sorted(name)?);
    Ok(out)
}
