//! The options: what each is called, takes and fills in. Walked by [`super::parse()`], printed by [`super::help`].

use super::command_line::{Accel, CommandLine, FwCfgArg, Located, MonitorArg, MonitorMode, PropArgs, PropInput};
use super::opts::{OptError, Opts, is_id};
use super::{desc, drive, fsdev, nic, size};
use crate::json;
use serde_json::Value;

/// Fills in what an option says. `at` is the option with its argument, `text` the argument alone.
pub type Apply = fn(&mut CommandLine, at: &str, text: &str) -> Result<(), OptError>;

/// One option.
pub struct OptionDef {
    /// Name without the dash.
    pub name: &'static str,
    /// Its argument in the help text; empty: it takes none.
    pub arg: &'static str,
    /// One or more lines of help.
    pub help: &'static str,
    /// What it does.
    pub apply: Apply,
}

fn opt(name: &'static str, arg: &'static str, help: &'static str, apply: Apply) -> OptionDef {
    OptionDef { name, arg, help, apply }
}

type Group = (&'static str, Vec<OptionDef>);

/// All options by group, in the order of the help text.
pub static OPTIONS: std::sync::LazyLock<Vec<Group>> = std::sync::LazyLock::new(|| {
    vec![
        ("Standard options", standard()),
        ("Devices", devices()),
        ("Block devices", block_devices()),
        ("Character devices and monitors", channels()),
        ("Display, files and network", display()),
        ("Boot", boot()),
        ("Running and debugging", running()),
    ]
});

fn standard() -> Vec<OptionDef> {
    vec![
        opt("h", "", "same as -help", |_, _, _| Ok(())),
        opt("help", "", "display this help and exit", |_, _, _| Ok(())),
        opt("version", "", "display version information and exit", |_, _, _| Ok(())),
        opt(
            "machine",
            "[type=]name[,prop[=value][,...]]",
            "selects emulated machine ('-machine help' for list)\naccel=accel1[:accel2[:...]] selects the accelerator",
            machine,
        ),
        opt("M", "[type=]name[,prop[=value][,...]]", "same as -machine", machine),
        opt("cpu", "cpu[,feature=on|off][,prop=value]", "select CPU ('-cpu help' for list)", |c, at, t| {
            c.cpu = Some(located(at, t.to_owned()));
            Ok(())
        }),
        opt("accel", "[accel=]accelerator[,prop[=value][,...]]", "select accelerator ('-accel help' for list)", accel),
        opt("enable-kvm", "", "same as -accel kvm", |c, at, _| {
            c.accels.push(located(at, Accel { name: "kvm".into(), props: vec![] }));
            Ok(())
        }),
        opt(
            "smp",
            "[[cpus=]n][,maxcpus=maxcpus][,sockets=sockets][,dies=dies][,clusters=clusters][,modules=modules][,cores=cores][,threads=threads]",
            "set the number of initial CPUs to 'n' [default=1]",
            |c, _, t| merge(|c| (&mut c.smp, &desc::SMP), c, t),
        ),
        opt(
            "m",
            "[size=]megs[,slots=n,maxmem=size]",
            "configure guest RAM (initial amount in MiB, or with a suffix)",
            |c, _, t| {
                merge(|c| (&mut c.memory, &desc::MEMORY), c, t)?;
                c.memory.size("size", 1 << 20).map(drop)
            },
        ),
        opt("name", "string1[,process=string2][,debug-threads=on|off]", "set the name of the guest", |c, _, t| {
            merge(|c| (&mut c.name, &desc::NAME), c, t)
        }),
        opt("uuid", "%08x-%04x-%04x-%04x-%012x", "specify machine UUID", |c, _, t| {
            c.uuid = Some(uuid(t).ok_or_else(|| {
                OptError::Other("failed to parse UUID string: expected 8-4-4-4-12 hexadecimal digits".into())
            })?);
            Ok(())
        }),
        opt(
            "rtc",
            "[base=utc|localtime|<datetime>][,clock=host|rt|vm][,driftfix=none|slew]",
            "set the RTC base and clock",
            |c, _, t| {
                merge(|c| (&mut c.rtc, &desc::RTC), c, t)?;
                c.rtc.choice("clock", &["host", "rt", "vm"])?;
                c.rtc.choice("driftfix", &["none", "slew"]).map(drop)
            },
        ),
    ]
}

fn devices() -> Vec<OptionDef> {
    vec![
        opt(
            "device",
            "driver[,prop[=value][,...]]",
            "add device (based on driver), as JSON too\n'-device help' prints all drivers, '-device driver,help' its properties",
            |c, at, t| {
                let mut warnings = vec![];
                let args = prop_args(t, &desc::DEVICE, "driver", &mut warnings)?;
                c.warnings.append(&mut warnings);
                c.devices.push(located(at, args));
                Ok(())
            },
        ),
        opt(
            "object",
            "TYPENAME[,PROP1=VALUE1,...]",
            "create a new object of type TYPENAME, as JSON too",
            |c, at, t| {
                let mut warnings = vec![];
                let args = prop_args(t, &desc::OBJECT, "qom-type", &mut warnings)?;
                if args.id.is_none() && !args.help {
                    return Err(OptError::Missing("id".into()));
                }
                c.objects.push(located(at, args));
                Ok(())
            },
        ),
        opt(
            "global",
            "driver.property=value",
            "set the default of a device property\n-global driver=driver,property=property,value=value",
            global,
        ),
        opt("usb", "", "enable on-board USB host controller (if not enabled by default)", |c, at, _| {
            machine(c, at, "usb=on")
        }),
        opt("nodefaults", "", "don't create default devices", |c, _, _| {
            c.nodefaults = true;
            Ok(())
        }),
        opt("no-user-config", "", "do not load default user-provided config files at startup", |c, _, _| {
            c.no_user_config = true;
            Ok(())
        }),
        opt(
            "fw_cfg",
            "[name=]<name>,file=<file>|string=<str>",
            "add named fw_cfg entry with contents from file or string",
            fw_cfg,
        ),
    ]
}

fn block_devices() -> Vec<OptionDef> {
    let mut all = vec![
        opt(
            "blockdev",
            "[driver=]driver[,node-name=N][,discard=ignore|unmap][,cache.direct=on|off][,cache.no-flush=on|off][,read-only=on|off][,auto-read-only=on|off][,force-share=on|off][,detect-zeroes=on|off|unmap][,driver specific parameters...]",
            "configure a block backend, as JSON too: file, host_device, null-co, raw",
            |c, at, t| {
                c.blockdevs.push(located(at, drive::blockdev(t)?));
                Ok(())
            },
        ),
        opt(
            "drive",
            "[file=file][,if=ide|floppy|virtio|none][,bus=n][,unit=m][,media=disk|cdrom][,index=i][,format=f][,cache=writethrough|writeback|none|directsync|unsafe][,snapshot=on|off][,rerror=ignore|stop|report][,werror=ignore|stop|report|enospc][,id=name][,aio=threads|io_uring][,readonly=on|off][,discard=ignore|unmap][,detect-zeroes=on|off|unmap]",
            "use 'file' as a drive image",
            |c, at, t| {
                let mut o = Opts::parse(t, &desc::DRIVE)?;
                c.warnings.append(&mut o.warnings);
                c.drives.push(located(at, o));
                Ok(())
            },
        ),
        opt("snapshot", "", "write to temporary files instead of disk image files", |c, _, _| {
            c.snapshot = true;
            Ok(())
        }),
    ];
    let [a, b, c, d] = drive::DISKS;
    let short: [(drive::Short, Apply); 7] = [
        (drive::FDA, |c, at, t| short_drive(c, at, t, &drive::FDA)),
        (drive::FDB, |c, at, t| short_drive(c, at, t, &drive::FDB)),
        (a, |c, at, t| short_drive(c, at, t, &drive::DISKS[0])),
        (b, |c, at, t| short_drive(c, at, t, &drive::DISKS[1])),
        (c, |c, at, t| short_drive(c, at, t, &drive::DISKS[2])),
        (d, |c, at, t| short_drive(c, at, t, &drive::DISKS[3])),
        (drive::CDROM, |c, at, t| short_drive(c, at, t, &drive::CDROM)),
    ];
    all.extend(short.into_iter().map(|(short, apply)| opt(short.name, "file", short.help, apply)));
    all
}

fn short_drive(c: &mut CommandLine, at: &str, file: &str, short: &drive::Short) -> Result<(), OptError> {
    c.drives.push(located(at, drive::from_short(file, short)));
    Ok(())
}

fn channels() -> Vec<OptionDef> {
    vec![
        opt(
            "chardev",
            "backend,id=id[,prop[=value][,...]][,mux=on|off][,logfile=PATH][,logappend=on|off]",
            "add a character device: file, memory, mux, null, pipe, pty, ringbuf, socket, stdio, vc",
            |c, at, t| {
                let mut o = Opts::parse(t, &desc::CHARDEV)?;
                c.warnings.append(&mut o.warnings);
                c.chardevs.push(located(at, o));
                Ok(())
            },
        ),
        opt("serial", "dev", "redirect the serial port to char device 'dev'", |c, at, t| push(&mut c.serials, at, t)),
        opt("parallel", "dev", "redirect the parallel port to char device 'dev'", |c, at, t| {
            push(&mut c.parallels, at, t)
        }),
        opt("debugcon", "dev", "redirect the debug console (port 0xe9) to char device 'dev'", |c, at, t| {
            c.debugcon = Some(located(at, t.to_owned()));
            Ok(())
        }),
        opt("monitor", "dev", "redirect the monitor to char device 'dev'", |c, at, t| {
            monitor(c, at, t, MonitorMode::Human, false)
        }),
        opt("qmp", "dev", "like -monitor but opens in 'control' mode", |c, at, t| {
            monitor(c, at, t, MonitorMode::Control, false)
        }),
        opt("qmp-pretty", "dev", "like -qmp but uses pretty JSON formatting", |c, at, t| {
            monitor(c, at, t, MonitorMode::Control, true)
        }),
        opt(
            "mon",
            "[chardev=]name[,mode=readline|control][,pretty[=on|off]]",
            "attach a monitor to a character device",
            mon,
        ),
        opt("echr", "chr", "set the terminal escape character instead of ctrl-a", |c, _, t| {
            let chr = size::number(t).and_then(|n| u8::try_from(n).ok());
            c.escape_char = Some(chr.ok_or_else(|| OptError::Other("expected a character code from 0 to 255".into()))?);
            Ok(())
        }),
    ]
}

fn display() -> Vec<OptionDef> {
    vec![
        opt(
            "fsdev",
            "local,id=id,path=path,security_model=mapped-xattr|passthrough|none[,readonly=on|off][,fmode=fmode][,dmode=dmode][,multidevs=remap|forbid|warn][,max_xattr=n]",
            "a folder for guests, which a device shows them",
            |c, at, t| {
                let mut o = Opts::parse(t, &desc::FSDEV)?;
                c.warnings.append(&mut o.warnings);
                c.fsdevs.push(located(at, fsdev::fsdev(&o)?));
                Ok(())
            },
        ),
        opt(
            "virtfs",
            "local,path=path,mount_tag=tag,security_model=mapped-xattr|passthrough|none[,id=id][,readonly=on|off][,fmode=fmode][,dmode=dmode][,multidevs=remap|forbid|warn][,max_xattr=n]",
            "a folder that the guest mounts by its tag: -fsdev and a virtio-9p-pci",
            |c, at, t| {
                let mut o = Opts::parse(t, &desc::VIRTFS)?;
                c.warnings.append(&mut o.warnings);
                let (id, folder, device) = fsdev::virtfs(&o)?;
                c.fsdevs.push(located(at, (id, folder)));
                c.devices.push(located(at, device));
                Ok(())
            },
        ),
        opt("display", "none", "select the display backend: none (the only one, and the default)", |c, _, t| {
            if t != "none" && t != "help" {
                return Err(OptError::Choice { key: "type".into(), value: t.into(), expected: "none".into() });
            }
            c.display = Some(t.into());
            Ok(())
        }),
        opt("nographic", "", "disable graphical output and redirect serial I/Os to console", |c, _, _| {
            c.nographic = true;
            Ok(())
        }),
        opt("vga", "[std|none]", "select video card type", |c, at, t| {
            if !["std", "none", "help"].contains(&t) {
                return Err(OptError::Other(format!("unknown vga type: {t} (expected std or none)")));
            }
            c.vga = Some(located(at, t.to_owned()));
            Ok(())
        }),
        opt(
            "netdev",
            "type,id=str[,option[=value][,...]]",
            "configure a network backend, as JSON too: dgram, hubport, socket, stream, tap, user",
            |c, at, t| {
                c.netdevs.push(located(at, nic::netdev(t)?));
                Ok(())
            },
        ),
        opt(
            "nic",
            "[type][,option=value][,model=mn][,mac=macaddr][,id=name] | none",
            "initialize a network card and connect it to a backend of the given type",
            |c, at, t| nic(c, at, t, true),
        ),
        opt(
            "net",
            "nic[,macaddr=mac][,model=type][,netdev=nd] | type[,option=value] | none",
            "configure or create a network card, or a backend on hub 0 (use -nic if possible)",
            |c, at, t| nic(c, at, t, false),
        ),
    ]
}

fn boot() -> Vec<OptionDef> {
    vec![
        opt("kernel", "bzImage", "use 'bzImage' as kernel image", |c, _, t| text(&mut c.kernel, t)),
        opt("initrd", "file", "use 'file' as initial ram disk", |c, _, t| text(&mut c.initrd, t)),
        opt("append", "cmdline", "use 'cmdline' as kernel command line", |c, _, t| text(&mut c.append, t)),
        opt("bios", "file", "set the filename for the BIOS", |c, _, t| text(&mut c.bios, t)),
        opt(
            "L",
            "path",
            "set the directory for the BIOS, VGA BIOS and option ROMs ('-L help': list them)",
            |c, _, t| {
                if t == "help" {
                    c.firmware_dirs_help = true;
                } else {
                    c.firmware_dirs.push(t.into());
                }
                Ok(())
            },
        ),
        opt(
            "boot",
            "[order=drives][,once=drives][,menu=on|off][,splash=sp_name][,splash-time=sp_time][,reboot-timeout=rb_time][,strict=on|off]",
            "'drives': floppy (a), hard disk (c), CD-ROM (d), network (n)",
            |c, _, t| {
                merge(|c| (&mut c.boot, &desc::BOOT), c, t)?;
                for key in ["order", "once"] {
                    drives(c.boot.get(key).unwrap_or_default())?;
                }
                Ok(())
            },
        ),
    ]
}

fn running() -> Vec<OptionDef> {
    vec![
        opt("S", "", "freeze CPU at startup (use 'c' to start execution)", |c, _, _| {
            c.stopped = true;
            Ok(())
        }),
        opt("no-reboot", "", "exit instead of rebooting", |c, _, _| {
            c.action.reboot = "shutdown";
            Ok(())
        }),
        opt("no-shutdown", "", "stop before shutdown", |c, _, _| {
            c.action.shutdown = "pause";
            Ok(())
        }),
        opt(
            "action",
            "reboot=reset|shutdown,shutdown=poweroff|pause,panic=pause|shutdown|exit-failure|none,watchdog=action",
            "action when guest reboots, shuts down, panics, or its watchdog fires",
            action,
        ),
        opt(
            "watchdog-action",
            "reset|shutdown|poweroff|pause|debug|none|inject-nmi",
            "what a watchdog does",
            |c, at, t| action(c, at, &format!("watchdog={t}")),
        ),
        opt("pidfile", "file", "write PID to 'file'", |c, _, t| {
            c.pidfile = Some(t.into());
            Ok(())
        }),
        opt("daemonize", "", "daemonize once everything is set up", |c, _, _| {
            c.daemonize = true;
            Ok(())
        }),
        opt("run-with", "[exit-with-parent=on|off][,chroot=dir]", "process settings", |c, _, t| {
            merge(|c| (&mut c.run_with, &desc::RUN_WITH), c, t)
        }),
        opt("msg", "[timestamp[=on|off]][,guest-name=[on|off]]", "control error message format", |c, _, t| {
            merge(|c| (&mut c.msg, &desc::MSG), c, t)
        }),
        opt("D", "logfile", "output log to logfile (default stderr)", |c, _, t| {
            c.log_file = Some(t.into());
            Ok(())
        }),
        opt(
            "d",
            "item1,...",
            "enable logging of specified items (use '-d help' for a list of log items)",
            |c, _, t| {
                c.log_items.extend(t.split(',').map(str::to_owned));
                Ok(())
            },
        ),
        opt(
            "dfilter",
            "range,..",
            "filter debug output to range of addresses (useful for -d cpu,exec,etc..)",
            |c, _, t| {
                c.dfilter = Some(crate::log::ranges(t).map_err(OptError::Other)?);
                Ok(())
            },
        ),
        opt("perfmap", "", "generate a /tmp/perf-${pid}.map file for perf", |c, _, _| {
            c.perfmap = true;
            Ok(())
        }),
        opt("jitdump", "", "generate a jit-${pid}.dump file for perf", |c, _, _| {
            c.jitdump = true;
            Ok(())
        }),
        opt("trace", "[[enable=]<pattern>][,events=<file>][,file=<file>]", "specify tracing options", |c, _, t| {
            c.trace.push(Opts::parse(t, &desc::TRACE)?);
            Ok(())
        }),
        opt("qtest", "dev", "speak the qtest protocol on character device 'dev'", |c, at, t| {
            c.qtest = Some(located(at, t.to_owned()));
            Ok(())
        }),
        opt("qtest-log", "file", "write the qtest conversation to 'file'", |c, _, t| text(&mut c.qtest_log, t)),
        opt(
            "icount",
            "[shift=N|auto][,align=on|off][,sleep=on|off]",
            "enable virtual instruction counter with 2^N clock ticks per instruction",
            |c, _, t| merge(|c| (&mut c.icount, &desc::ICOUNT), c, t),
        ),
    ]
}

/// QEMU's options that do not exist here yet, and whether they take an argument: named so that the message can tell.
pub static NOT_BUILT: &[(&str, bool)] = &[
    ("preconfig", false),
    ("acpitable", true),
    ("add-fd", true),
    ("audio", true),
    ("audiodev", true),
    ("compat", true),
    ("dtb", true),
    ("dump-vmstate", true),
    ("enable-sync-profile", false),
    ("full-screen", false),
    ("gdb", true),
    ("incoming", true),
    ("iscsi", true),
    ("k", true),
    ("loadvm", true),
    ("mem-path", true),
    ("mem-prealloc", false),
    ("mtdblock", true),
    ("no-fd-bootchk", false),
    ("numa", true),
    ("only-migratable", false),
    ("option-rom", true),
    ("overcommit", true),
    ("pflash", true),
    ("plugin", true),
    ("readconfig", true),
    ("s", false),
    ("sandbox", true),
    ("sd", true),
    ("seed", true),
    ("set", true),
    ("shim", true),
    ("smbios", true),
    ("spice", true),
    ("tpmdev", true),
    ("usbdevice", true),
    ("vnc", true),
    ("win2k-hack", false),
    ("xen-attach", false),
    ("xen-domid", true),
    ("xen-domid-restrict", false),
];

fn located<T>(at: &str, value: T) -> Located<T> {
    Located { at: at.into(), value }
}

fn push(list: &mut Vec<Located<String>>, at: &str, text: &str) -> Result<(), OptError> {
    list.push(located(at, text.into()));
    Ok(())
}

fn text(slot: &mut Option<String>, text: &str) -> Result<(), OptError> {
    *slot = Some(text.into());
    Ok(())
}

fn merge(
    which: fn(&mut CommandLine) -> (&mut Opts, &'static desc::Desc),
    c: &mut CommandLine,
    text: &str,
) -> Result<(), OptError> {
    let (opts, desc) = which(c);
    opts.add(text, desc)?;
    let mut warnings = std::mem::take(&mut opts.warnings);
    c.warnings.append(&mut warnings);
    Ok(())
}

fn machine(c: &mut CommandLine, at: &str, text: &str) -> Result<(), OptError> {
    c.machine_at = at.into();
    merge(|c| (&mut c.machine, &desc::MACHINE), c, text)
}

fn accel(c: &mut CommandLine, at: &str, text: &str) -> Result<(), OptError> {
    let mut o = Opts::parse(text, &desc::ACCEL)?;
    if o.help || o.get("accel") == Some("help") {
        c.accel_help = true;
        return Ok(());
    }
    c.warnings.append(&mut o.warnings);
    let name = o.take("accel").ok_or_else(|| OptError::Missing("accel".into()))?;
    c.accels.push(located(at, Accel { name, props: o.pairs }));
    Ok(())
}

/// A type with properties, as a list or as a JSON object.
fn prop_args(text: &str, desc: &desc::Desc, type_key: &str, warnings: &mut Vec<String>) -> Result<PropArgs, OptError> {
    let mut args = if text.starts_with('{') {
        json_args(text)?
    } else {
        let o = Opts::parse(text, desc)?;
        warnings.extend(o.warnings);
        let props = o.pairs.into_iter().map(|(k, v)| (k, PropInput::Text(v))).collect();
        PropArgs { type_name: String::new(), id: o.id, props, help: o.help }
    };
    let at = args.props.iter().position(|(k, _)| k == type_key);
    match at.map(|i| args.props.remove(i).1) {
        Some(v) => args.type_name = v.as_str().map(str::to_owned).ok_or_else(|| not_text(type_key))?,
        None if args.help => {}
        None => return Err(OptError::Missing(type_key.into())),
    }
    Ok(args)
}

fn not_text(key: &str) -> OptError {
    OptError::Other(format!("Invalid parameter type for '{key}', expected: string"))
}

fn json_args(text: &str) -> Result<PropArgs, OptError> {
    let Value::Object(map) = json::from_str(text).map_err(|e| OptError::Other(e.to_string()))? else {
        return Err(OptError::Other("expected a JSON object".into()));
    };
    let mut args = PropArgs::default();
    for (key, value) in map {
        if key != "id" {
            args.props.push((key, PropInput::Json(value)));
            continue;
        }
        let id = value.as_str().ok_or_else(|| not_text("id"))?;
        if !is_id(id) {
            return Err(OptError::Id);
        }
        args.id = Some(id.into());
    }
    Ok(args)
}

fn global(c: &mut CommandLine, at: &str, text: &str) -> Result<(), OptError> {
    let short = text.split_once('=').and_then(|(left, value)| {
        let (driver, prop) = left.split_once('.')?;
        Some((driver.to_owned(), prop.to_owned(), value.to_owned()))
    });
    let found = match short {
        Some(g) => g,
        None => {
            let o = Opts::parse(text, &desc::GLOBAL)?;
            match (o.text("driver"), o.text("property"), o.text("value")) {
                (Some(d), Some(p), Some(v)) => (d, p, v),
                _ => return Err(OptError::Other("options 'driver', 'property', and 'value' are required".into())),
            }
        }
    };
    c.globals.push(located(at, found));
    Ok(())
}

fn fw_cfg(c: &mut CommandLine, at: &str, text: &str) -> Result<(), OptError> {
    let mut o = Opts::parse(text, &desc::FW_CFG)?;
    c.warnings.append(&mut o.warnings);
    let name = o.text("name").ok_or_else(|| OptError::Other("invalid argument(s): a name is needed".into()))?;
    if name.is_empty() || name.len() > 55 {
        return Err(OptError::Other(format!("name '{name}' must have 1 to 55 characters")));
    }
    let arg = match (o.text("file"), o.text("string")) {
        (Some(path), None) => FwCfgArg::File { name, path: path.into() },
        (None, Some(text)) => FwCfgArg::Text { name, text },
        _ => return Err(OptError::Other("invalid argument(s): exactly one of file and string is needed".into())),
    };
    c.fw_cfg.push(located(at, arg));
    Ok(())
}

fn monitor(c: &mut CommandLine, at: &str, text: &str, mode: MonitorMode, pretty: bool) -> Result<(), OptError> {
    // As in QEMU, -qmp takes the place of the default human monitor too.
    c.monitor_given = true;
    if text != "none" {
        c.monitors.push(located(at, MonitorArg { chardev: text.into(), by_id: false, mode, pretty }));
    }
    Ok(())
}

fn mon(c: &mut CommandLine, at: &str, text: &str) -> Result<(), OptError> {
    let mut o = Opts::parse(text, &desc::MON)?;
    c.warnings.append(&mut o.warnings);
    c.monitor_given = true;
    let mode = match o.choice("mode", &["readline", "control"])? {
        Some("control") => MonitorMode::Control,
        _ => MonitorMode::Human,
    };
    let pretty = o.switch("pretty")?.unwrap_or(false);
    if pretty && mode == MonitorMode::Human {
        return Err(OptError::Other("'pretty' is not compatible with HMP monitors".into()));
    }
    let chardev = o.text("chardev").ok_or_else(|| OptError::Missing("chardev".into()))?;
    c.monitors.push(located(at, MonitorArg { chardev, by_id: true, mode, pretty }));
    Ok(())
}

fn nic(c: &mut CommandLine, at: &str, text: &str, modern: bool) -> Result<(), OptError> {
    let o = Opts::parse(text, &desc::NIC)?;
    if o.get("type") == Some("none") {
        c.no_net = true;
        return Ok(());
    }
    c.nics.push(located(at, (modern, o)));
    Ok(())
}

fn action(c: &mut CommandLine, _: &str, text: &str) -> Result<(), OptError> {
    let o = Opts::parse(text, &desc::ACTION)?;
    let a = &mut c.action;
    a.reboot = o.choice("reboot", &["reset", "shutdown"])?.unwrap_or(a.reboot);
    a.shutdown = o.choice("shutdown", &["poweroff", "pause"])?.unwrap_or(a.shutdown);
    a.panic = o.choice("panic", &["pause", "shutdown", "exit-failure", "none"])?.unwrap_or(a.panic);
    a.watchdog = o
        .choice("watchdog", &["reset", "shutdown", "poweroff", "pause", "debug", "none", "inject-nmi"])?
        .unwrap_or(a.watchdog);
    Ok(())
}

/// Boot drives: each letter of a to p at most once.
fn drives(order: &str) -> Result<(), OptError> {
    for (i, c) in order.char_indices() {
        if !('a'..='p').contains(&c) {
            return Err(OptError::Other(format!("Invalid boot device '{c}'")));
        }
        if order.chars().take(i).any(|d| d == c) {
            return Err(OptError::Other(format!("Boot device '{c}' was given twice")));
        }
    }
    Ok(())
}

/// Canonical lower-case text of a UUID.
fn uuid(text: &str) -> Option<String> {
    let groups: Vec<&str> = text.split('-').collect();
    let right = groups.iter().map(|g| g.len()).eq([8, 4, 4, 4, 12]);
    (right && groups.iter().all(|g| g.bytes().all(|b| b.is_ascii_hexdigit()))).then(|| text.to_ascii_lowercase())
}
