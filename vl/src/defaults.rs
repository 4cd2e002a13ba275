//! Which ports a machine gets and where they lead: `-serial`, `-parallel`, `-debugcon`, `-vga`, and QEMU's defaults.

use crate::options::chardev::{Short, from_short};
use crate::options::{CommandLine, Located};
use crate::vm::StartError;
use hw_core::MachineClass;
use hw_core::config::Vga;
use qom::Class;

/// One port.
#[derive(Debug)]
pub struct Port {
    /// The option, for errors.
    pub at: String,
    /// Where it leads.
    pub short: Short,
}

impl Port {
    /// Id of the character device; `None`: the port is left out.
    pub fn chardev(&self) -> Option<String> {
        match &self.short {
            Short::None => None,
            Short::Existing(id) => Some(id.clone()),
            Short::New { config, .. } => Some(config.id.clone()),
        }
    }
}

/// All ports of a machine.
#[derive(Debug, Default)]
pub struct Ports {
    /// Serial ports in order.
    pub serial: Vec<Port>,
    /// Parallel ports in order.
    pub parallel: Vec<Port>,
    /// Port 0xe9.
    pub debugcon: Option<Port>,
    /// Short form of the default human monitor's device.
    pub default_monitor: Option<String>,
    /// The display adapter.
    pub vga: Option<Vga>,
}

impl Ports {
    /// All ports, in the order their devices are opened.
    pub fn all(&self) -> impl Iterator<Item = &Port> {
        self.serial.iter().chain(&self.parallel).chain(&self.debugcon)
    }
}

/// Types that take the place of a default port when they come from `-device` or `-global`.
const REPLACES: [(&str, &str); 6] = [
    ("isa-serial", "serial"),
    ("isa-parallel", "parallel"),
    ("VGA", "vga"),
    ("isa-vga", "vga"),
    ("virtio-vga", "vga"),
    ("bochs-display", "vga"),
];

/// Decides what there is.
///
/// # Errors
/// A short form that is none; `-daemonize` with ports on the terminal.
pub fn plan(line: &CommandLine, class: &Class) -> Result<Ports, StartError> {
    let mc = class.get::<MachineClass>().cloned().unwrap_or_default();
    let replaced = |what: &str| {
        let given = line.devices.iter().map(|d| d.value.type_name.as_str());
        let mut given = given.chain(line.globals.iter().map(|g| g.value.0.as_str()));
        given.any(|t| REPLACES.contains(&(t, what)))
    };
    let serial = line.serials.is_empty() && !line.nodefaults && !mc.no_serial && !replaced("serial");
    let parallel = line.parallels.is_empty() && !line.nodefaults && !mc.no_parallel && !replaced("parallel");
    let monitor = !line.monitor_given && !line.nodefaults;
    if line.daemonize && line.nographic && (serial || parallel || monitor) {
        return Err(StartError("-nographic cannot be used with -daemonize".into()));
    }
    let mut serials = line.serials.clone();
    let mut parallels = line.parallels.clone();
    let mut default_monitor = None;
    let default = |text: &str| Located { at: String::new(), value: text.to_owned() };
    if line.nographic {
        if parallel {
            parallels.push(default("null"));
        }
        // QMP on the terminal keeps the terminal to itself.
        let taken = uses_stdio(line);
        match (serial, monitor) {
            _ if taken => {}
            (true, true) => serials.push(default("mon:stdio")),
            (true, false) => serials.push(default("stdio")),
            (false, true) => default_monitor = Some("stdio".into()),
            (false, false) => {}
        }
    } else {
        if serial {
            serials.push(default("vc:80Cx24C"));
        }
        if parallel {
            parallels.push(default("vc:80Cx24C"));
        }
        if monitor {
            default_monitor = Some("vc:80Cx24C".into());
        }
    }
    let vga = match line.vga.as_ref().map(|v| v.value.as_str()) {
        Some("std") => Some(Vga::Std),
        Some(_) => None,
        None if line.nodefaults || replaced("vga") => None,
        None => mc.default_display.filter(|d| *d == "std").map(|_| Vga::Std),
    };
    Ok(Ports {
        serial: ports("serial", &serials)?,
        parallel: ports("parallel", &parallels)?,
        debugcon: ports("debugcon", line.debugcon.as_slice())?.pop(),
        default_monitor,
        vga,
    })
}

/// Whether the user gave the terminal to something already.
fn uses_stdio(line: &CommandLine) -> bool {
    let monitors = line.monitors.iter().any(|m| !m.value.by_id && m.value.chardev == "stdio");
    let chardevs = line.chardevs.iter().any(|c| c.value.get("backend") == Some("stdio"));
    let ports = line.serials.iter().chain(&line.parallels).chain(&line.debugcon).chain(&line.qtest);
    monitors || chardevs || ports.map(|p| p.value.as_str()).any(|t| t == "stdio" || t == "mon:stdio")
}

fn ports(kind: &str, given: &[Located<String>]) -> Result<Vec<Port>, StartError> {
    let port = |(i, arg): (usize, &Located<String>)| {
        let id = if kind == "debugcon" { kind.to_owned() } else { format!("{kind}{i}") };
        let short = from_short(&id, &arg.value).map_err(|e| StartError(format!("{}: {e}", arg.at)))?;
        Ok(Port { at: arg.at.clone(), short })
    };
    given.iter().enumerate().map(port).collect()
}
