//! The commands. Most are QMP commands with people's syntax.

use super::{Call, HmpCommand, Result, blocks, command, help, info, media, x};
use crate::monitor::commands;
use crate::options::PropInput;
use crate::options::desc;
use crate::options::opts::Opts;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::Arc;

pub(super) static COMMANDS: &[HmpCommand] = &[
    command(&["help", "?"], "[cmd]", "show the help", |c| {
        let (all, words) = (COMMANDS, c.args);
        match words.split_once(' ') {
            Some(("info", item)) => help(c.out, info::ITEMS, "info ", Some(item.trim())),
            _ if words == "info" => help(c.out, info::ITEMS, "info ", None),
            _ => help(c.out, all, "", Some(words).filter(|w| !w.is_empty())),
        }
        Ok(())
    }),
    command(&["info"], "[subcommand]", "show various information about the system state", info::run),
    command(&["quit", "q"], "", "quit the emulator", |c| qmp(c, "quit", json!({}))),
    command(&["log"], "item1[,...]", "activate logging of the specified items", log),
    command(&["logfile"], "filename", "output logs to 'filename'", |c| process_log(c.vm)?.set_file(c.args)),
    command(&["stop", "s"], "", "stop emulation", |c| qmp(c, "stop", json!({}))),
    command(&["cont", "c"], "", "resume emulation", |c| qmp(c, "cont", json!({}))),
    command(&["system_reset"], "", "reset the system", |c| qmp(c, "system_reset", json!({}))),
    command(&["system_powerdown"], "", "send system power down event", |c| qmp(c, "system_powerdown", json!({}))),
    command(&["system_wakeup"], "", "wakeup guest from suspend", |c| qmp(c, "system_wakeup", json!({}))),
    command(&["x"], "/fmt addr", "virtual memory dump starting at 'addr'", |c| x::dump(c, true)),
    command(&["xp"], "/fmt addr", "physical memory dump starting at 'addr'", |c| x::dump(c, false)),
    command(&["i"], "/fmt addr", "I/O port read", x::port_in),
    command(&["o"], "/fmt addr value", "I/O port write", x::port_out),
    command(&["cpu"], "index", "set the default CPU", |c| {
        let index = c.args.parse().ok().filter(|i| c.vm.core().cpus.get(*i).is_some());
        c.set_cpu = Some(index.ok_or("invalid CPU index")?);
        Ok(())
    }),
    command(
        &["pmemsave"],
        "addr size file",
        "save to disk physical memory dump starting at 'addr' of size 'size'",
        |c| save(c, "pmemsave"),
    ),
    command(
        &["memsave"],
        "addr size file",
        "save to disk virtual memory dump starting at 'addr' of size 'size'",
        |c| save(c, "memsave"),
    ),
    command(
        &["sendkey"],
        "keys [hold_ms]",
        "send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)",
        send_key,
    ),
    command(&["mouse_move"], "dx dy [dz]", "send mouse move events", mouse_move),
    command(&["mouse_set"], "index", "set which mouse device receives events", |c| {
        let index = usize::try_from(x::number(c.args)?).unwrap_or(usize::MAX);
        commands::pointer::choose(c.vm, index)
    }),
    command(&["mouse_button"], "state", "change mouse button state (1=L, 2=M, 4=R)", mouse_button),
    command(&["balloon"], "target", "request VM to change its memory allocation (in MB)", |c| {
        let bytes = x::number(c.args)?.checked_mul(1 << 20).filter(|b| *b <= i64::MAX as u64);
        qmp(c, "balloon", json!({"value": bytes.ok_or("the size is too large")?}))
    }),
    command(&["screendump"], "filename [-f format] [device [head]]", "save screen into image 'filename'", screendump),
    command(&["device_add"], "driver[,prop=value][,...]", "add device, like -device on the command line", |c| {
        props(c, &desc::DEVICE, "driver", |vm, args| crate::start::device_add(vm, args))
    }),
    command(&["device_del"], "device", "remove device", |c| {
        let id = c.args;
        qmp(c, "device_del", json!({"id": id}))
    }),
    command(&["object_add"], "qom-type=type,id=str[,prop=value][,...]", "create QOM object", |c| {
        props(c, &desc::OBJECT, "qom-type", crate::start::object_add)
    }),
    command(&["object_del"], "id", "destroy QOM object", |c| {
        let id = c.args;
        qmp(c, "object-del", json!({"id": id}))
    }),
    command(&["qom-list"], "path", "list QOM properties", |c| {
        let o = c.vm.scope().resolve(c.args).map_err(text)?;
        for p in o.properties() {
            let _ = writeln!(c.out, "{} ({})", p.name, p.ty);
        }
        Ok(())
    }),
    command(&["qom-get"], "path property", "print QOM property", |c| {
        let (path, property) = c.args.split_once(' ').ok_or("expected: path property")?;
        let v = c.vm.scope().resolve(path).map_err(text)?.get(property.trim()).map_err(text)?;
        let _ = writeln!(c.out, "{}", crate::json::to_pretty(&v));
        Ok(())
    }),
    command(&["qom-set"], "path property value", "set QOM property", |c| {
        let mut words = c.args.splitn(3, ' ');
        let (Some(path), Some(property), Some(value)) = (words.next(), words.next(), words.next()) else {
            return Err("expected: path property value".into());
        };
        c.vm.scope().resolve(path).map_err(text)?.set_str(property, value).map_err(text)
    }),
    command(
        &["netdev_add"],
        "[user|socket|stream|dgram|tap|hubport],id=str[,prop=value][,...]",
        "add host network device",
        |c| {
            let opts = crate::options::nic::netdev(c.args).map_err(text)?;
            c.vm.nets.netdev_add(opts).map(drop).map_err(text)
        },
    ),
    command(&["netdev_del"], "id", "remove host network device", |c| {
        let id = c.args;
        qmp(c, "netdev_del", json!({"id": id}))
    }),
    command(&["set_link"], "name on|off", "change the link status of a network adapter", |c| {
        let (name, up) = c.args.split_once(' ').ok_or("expected: name on|off")?;
        let up = crate::options::size::boolean(up.trim()).ok_or("expected: name on|off")?;
        qmp(c, "set_link", json!({"name": name, "up": up}))
    }),
    command(
        &["hostfwd_add"],
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport",
        "redirect TCP or UDP connections from host to guest (requires -net user)",
        |c| {
            let shown = c.vm.nets.host_forward(c.args, true).map_err(text)?;
            c.out.push_str(&shown);
            Ok(())
        },
    ),
    command(
        &["hostfwd_remove"],
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport",
        "remove host-to-guest TCP or UDP redirection",
        |c| {
            let shown = c.vm.nets.host_forward(c.args, false).map_err(text)?;
            c.out.push_str(&shown);
            Ok(())
        },
    ),
    command(
        &["drive_add"],
        "[-n] [[<domain>:]<bus>:]<slot> [file=file][,if=type][,key=value][,...]",
        "add a drive that a device may take (-n: a node)",
        media::drive_add,
    ),
    command(&["drive_del"], "device", "remove host block device", media::drive_del),
    command(
        &["change"],
        "device [-f] filename [format [read-only-mode]]",
        "change a removable medium, optional format, use -f to force the operation",
        media::change,
    ),
    command(&["eject"], "[-f] device", "eject a removable medium (use -f to force it)", media::eject),
    command(&["block_resize"], "device size", "resize a block image", media::resize),
    command(
        &["block_stream"],
        "device [speed [base]]",
        "copy data from a backing file into a block device",
        blocks::stream,
    ),
    command(
        &["block_job_set_speed"],
        "device speed",
        "set maximum speed for a background block operation",
        blocks::set_speed,
    ),
    command(
        &["block_job_cancel"],
        "[-f] device",
        "stop an active background block operation (use -f if you want to abort the operation immediately instead of keep running until data is in sync)",
        blocks::cancel,
    ),
    command(&["block_job_complete"], "device", "stop an active background block operation", |c| {
        blocks::job(c, "block-job-complete")
    }),
    command(&["block_job_pause"], "device", "pause an active background block operation", |c| {
        blocks::job(c, "block-job-pause")
    }),
    command(&["block_job_resume"], "device", "resume a paused background block operation", |c| {
        blocks::job(c, "block-job-resume")
    }),
    command(
        &["block_set_io_throttle"],
        "device bps bps_rd bps_wr iops iops_rd iops_wr",
        "change I/O throttle limits for a block drive",
        blocks::throttle,
    ),
    command(&["chardev-remove"], "id", "remove chardev", |c| {
        let id = c.args;
        qmp(c, "chardev-remove", json!({"id": id}))
    }),
    command(&["chardev-send-break"], "id", "send a break on chardev", |c| {
        let id = c.args;
        qmp(c, "chardev-send-break", json!({"id": id}))
    }),
    command(&["ringbuf_read"], "device size", "read from a ring buffer character device", |c| {
        let (device, size) = c.args.split_once(' ').ok_or("expected: device size")?;
        let size = x::number(size.trim())?;
        let v = run(c, "ringbuf-read", json!({"device": device, "size": size}))?;
        let _ = writeln!(c.out, "{}", v.as_str().unwrap_or_default());
        Ok(())
    }),
    command(&["ringbuf_write"], "device data", "write to a ring buffer character device", |c| {
        let (device, data) = c.args.split_once(' ').ok_or("expected: device data")?;
        qmp(c, "ringbuf-write", json!({"device": device, "data": data}))
    }),
];

pub(super) fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// Runs a QMP command; its reply.
pub(super) fn run(c: &Call<'_>, name: &str, args: Value) -> std::result::Result<Value, String> {
    let empty = Map::new();
    commands::run(c.vm, name, args.as_object().unwrap_or(&empty), false).map_err(text)
}

/// Runs a QMP command that replies nothing.
pub(super) fn qmp(c: &mut Call<'_>, name: &str, args: Value) -> Result {
    run(c, name, args).map(drop)
}

/// `ctrl-alt-f1`, `0x1c`, and an optional hold time.
fn send_key(c: &mut Call<'_>) -> Result {
    let mut words = c.args.split_whitespace();
    let keys = words.next().ok_or("expected: keys [hold_ms]")?;
    let key = |name: &str| match name.strip_prefix("0x").map(|h| i64::from_str_radix(h, 16)) {
        Some(Ok(number)) => json!({"type": "number", "data": number}),
        // The character stands for its key: `-` separates.
        _ if name == "<" => json!({"type": "qcode", "data": "less"}),
        _ => json!({"type": "qcode", "data": name}),
    };
    let mut args = json!({"keys": keys.split('-').map(key).collect::<Vec<_>>()});
    if let (Some(hold), Some(map)) = (words.next(), args.as_object_mut()) {
        map.insert("hold-time".into(), x::number(hold)?.into());
    }
    qmp(c, "send-key", args)
}

fn mouse_move(c: &mut Call<'_>) -> Result {
    let mut words = c.args.split_whitespace();
    let mut next = || words.next().map(|w| w.parse::<i32>().map_err(|_| format!("'{w}' is not a number"))).transpose();
    let (Some(dx), Some(dy)) = (next()?, next()?) else { return Err("expected: dx dy [dz]".into()) };
    let step = |axis: &str, value: i32| json!({"type": "rel", "data": {"axis": axis, "value": value}});
    let mut events = vec![step("x", dx), step("y", dy)];
    if let Some(dz) = next()?.filter(|dz| *dz != 0) {
        let wheel = if dz > 0 { "wheel-up" } else { "wheel-down" };
        events.push(json!({"type": "btn", "data": {"button": wheel, "down": true}}));
    }
    qmp(c, "input-send-event", json!({"events": events}))
}

fn mouse_button(c: &mut Call<'_>) -> Result {
    let state = x::number(c.args)?;
    let button = |(name, bit): (&str, u64)| json!({"type": "btn", "data": {"button": name, "down": state & bit != 0}});
    let events: Vec<_> = [("left", 1), ("middle", 2), ("right", 4)].map(button).into();
    qmp(c, "input-send-event", json!({"events": events}))
}

fn screendump(c: &mut Call<'_>) -> Result {
    let mut words = c.args.split_whitespace();
    let mut args = Map::new();
    args.insert("filename".into(), words.next().ok_or("expected: filename")?.into());
    while let Some(word) = words.next() {
        match word {
            "-f" => drop(args.insert("format".into(), words.next().ok_or("-f: expected ppm or png")?.into())),
            _ if !args.contains_key("device") => drop(args.insert("device".into(), word.into())),
            _ => drop(args.insert("head".into(), x::number(word)?.into())),
        }
    }
    qmp(c, "screendump", args.into())
}

fn save(c: &mut Call<'_>, name: &str) -> Result {
    let mut words = c.args.splitn(3, ' ');
    let (Some(addr), Some(size), Some(file)) = (words.next(), words.next(), words.next()) else {
        return Err("expected: addr size file".into());
    };
    let file = file.trim().trim_matches('"');
    let mut args = json!({"val": x::number(addr)?, "size": x::number(size)?, "filename": file});
    if let (true, Some(map)) = (name == "memsave", args.as_object_mut()) {
        map.insert("cpu-index".into(), c.cpu.into());
    }
    qmp(c, name, args)
}

/// `driver,key=value…` as on the command line.
fn props(
    c: &mut Call<'_>,
    desc: &desc::Desc,
    key: &str,
    add: fn(&Arc<crate::Vm>, &crate::options::PropArgs) -> qom::Result<()>,
) -> Result {
    let mut o = Opts::parse(c.args, desc).map_err(text)?;
    let type_name = o.take(key).ok_or_else(|| format!("Parameter '{key}' is missing"))?;
    let props = o.pairs.into_iter().map(|(k, v)| (k, PropInput::Text(v))).collect();
    add(c.vm, &crate::options::PropArgs { type_name, id: o.id, props, help: false }).map_err(text)
}

/// The process's log, if this machine may change it.
fn process_log(vm: &crate::vm::Vm) -> std::result::Result<&crate::log::Log, String> {
    vm.log.as_ref().ok_or_else(|| "the log is not this machine's to change".to_owned())
}

/// `log ITEMS`. An item there is not: the list, as in QEMU.
fn log(c: &mut Call<'_>) -> Result {
    let items: Vec<String> = c.args.split(',').map(|i| i.trim().to_owned()).collect();
    if process_log(c.vm)?.set_items(&items).is_err() {
        help(c.out, COMMANDS, "", Some("log"));
        c.out.push_str(&crate::log::help());
    }
    // (A vCPU looks for items that concern all its blocks when it begins to run.)
    c.vm.core().cpus.kick_all();
    Ok(())
}
