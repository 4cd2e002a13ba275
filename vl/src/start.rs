//! Start-up in QEMU's phases, one function each. [`start`] is the order.

use crate::defaults::Ports;
use crate::monitor::{self, hmp};
use crate::options::chardev::{Short, from_opts, from_short};
use crate::options::size;
use crate::options::{self, Accel, CommandLine, FwCfgArg, Located, MonitorMode, OptError, PropArgs, PropInput};
use crate::qtest;
use crate::vm::{Env, StartError, Vm};
use accel::{TcgAccel, icount::IcountConfig, tcg::Insight};
use chardev::{Channel, config::Backend};
use hw_core::accel::Accel as AccelObject;
use hw_core::config::{BoardConfig, RtcBase, RtcConfig};
use hw_core::{ClockType, DeviceAdd, Machine, MachineClass, RunState, ShutdownCause};
use qom::{Class, Global, Input, Rank, Ref};
use serde_json::{Map, Value};
use std::sync::Arc;

type Result<T, E = StartError> = std::result::Result<T, E>;

fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(StartError(message.into()))
}

/// An error with the option it is about in front.
fn at<E: std::fmt::Display>(place: &str) -> impl FnOnce(E) -> StartError + '_ {
    move |e| StartError(if place.is_empty() { e.to_string() } else { format!("{place}: {e}") })
}

/// Builds the machine that `line` asks for; its vCPUs wait for the main loop.
pub fn start(line: CommandLine, env: Env) -> Result<Arc<Vm>> {
    let class = select_machine(&line)?;
    let vm = Vm::empty(line, env)?;
    vm.options.warnings.iter().for_each(|w| vm.warn(w));
    let machine = create_machine(&vm, class)?;
    let ports = crate::defaults::plan(&vm.options, class)?;
    let unseen = is_unseen(&vm.options, &ports);
    create_chardevs(&vm, &ports)?;
    create_objects(&vm, true)?;
    create_drives(&vm, class)?;
    create_folders(&vm)?;
    let default_card = create_networks(&vm, class)?;
    set_machine_properties(&vm, &machine)?;
    configure_accelerator(&vm, &machine)?;
    register_globals(&vm, &machine);
    create_objects(&vm, false)?;
    set_machine_links(&vm, &machine)?;
    create_monitors(&vm, &ports)?;
    create_qtest(&vm)?;
    configure_board(&vm, &machine, ports)?;
    init_board(&vm, &machine)?;
    create_text_consoles(&vm)?;
    create_devices(&vm)?;
    if default_card && vm.core().roms.find(NIC_ROM.0).is_none() {
        let (rom, package) = NIC_ROM;
        vm.warn(&format!("the network card has no boot ROM: {rom} is in the package {package} (-nic none: no card)"));
    }
    if unseen {
        vm.report
            .say("info: no display is built in: use -nographic for the serial console, or screendump in a monitor");
    }
    finish(&vm, &machine);
    Ok(vm)
}

/// The machine type: `-machine NAME`, or the default one.
fn select_machine(line: &CommandLine) -> Result<&'static Class> {
    match line.machine.get("type") {
        Some(name) => hw_core::machine::find_machine(name).map_err(at(&line.machine_at)),
        None => match hw_core::machine::default_machine() {
            Some(class) => Ok(class),
            None => {
                fail("No machine specified, and there is no default (use -machine help to list supported machines)")
            }
        },
    }
}

fn create_machine(vm: &Arc<Vm>, class: &'static Class) -> Result<Ref<Machine>> {
    for folder in ["/chardevs", "/objects", "/backend", "/audiodevs"] {
        vm.scope().container(folder).map_err(at(""))?;
    }
    let machine = Machine::create(vm.scope(), class.name()).map_err(at(&vm.options.machine_at))?;
    machine.apply_compat_props();
    Ok(machine)
}

/// There is no window: whoever did not ask for that is told where the guest can be seen.
fn is_unseen(line: &CommandLine, ports: &Ports) -> bool {
    let something = ports.vga.is_some() || ports.serial.iter().any(|p| p.at.is_empty());
    line.display.is_none() && !line.nographic && something
}

/// `-chardev`, then what the short forms of `-serial`, `-parallel` and friends ask for.
fn create_chardevs(vm: &Arc<Vm>, ports: &Ports) -> Result<()> {
    for arg in &vm.options.chardevs {
        let config = from_opts(&arg.value).map_err(at(&arg.at))?;
        open_chardev(vm, &config).map_err(at(&arg.at))?;
    }
    for port in ports.all() {
        if let Short::New { config, .. } = &port.short {
            open_chardev(vm, config).map_err(at(&port.at))?;
        }
    }
    Ok(())
}

/// Types that take the place of a default drive when they come from `-device` or `-global`.
const CD_REPLACES: [&str; 4] = ["ide-cd", "ide-hd", "scsi-cd", "scsi-hd"];
const FLOPPY_REPLACES: [&str; 2] = ["isa-fdc", "floppy"];

/// `-blockdev`, then `-drive` and its short forms, then the CD and floppy drives that a machine has by default.
fn create_drives(vm: &Vm, class: &'static Class) -> Result<()> {
    let (line, blocks) = (&vm.options, &vm.blocks);
    for node in &line.blockdevs {
        blocks.blockdev_add(node.value.clone()).map_err(at(&node.at))?;
    }
    for drive in &line.drives {
        let config = options::drive::drive(&drive.value, line.snapshot).map_err(at(&drive.at))?;
        blocks.add_drive(config).map_err(at(&drive.at))?;
    }
    let given = |types: &[&str]| {
        let devices = line.devices.iter().map(|d| d.value.type_name.as_str());
        devices.chain(line.globals.iter().map(|g| g.value.0.as_str())).any(|t| types.contains(&t))
    };
    let Some(c) = class.get::<MachineClass>().filter(|_| !line.nodefaults) else { return Ok(()) };
    for (wanted, short, place) in [
        (!c.no_cdrom && !given(&CD_REPLACES), options::drive::CDROM, (block::Interface::Ide, 1, 0)),
        (!c.no_floppy && !given(&FLOPPY_REPLACES), options::drive::FDA, (block::Interface::Floppy, 0, 0)),
    ] {
        if wanted && blocks.drive_at(place.0, place.1, place.2).is_none() {
            let config = options::drive::drive(&options::drive::from_short("", &short), false).map_err(at(""))?;
            blocks.add_drive(config).map_err(at(""))?;
        }
    }
    Ok(())
}

/// Expansion ROM of the default card, and the package it comes with.
const NIC_ROM: (&str, &str) = ("efi-e1000.rom", "ipxe-qemu");

/// `-fsdev` and the folders of `-virtfs`.
fn create_folders(vm: &Vm) -> Result<()> {
    let folders = vm.core().service::<hw::fsdev::FsDevs>();
    vm.options.fsdevs.iter().try_for_each(|f| folders.add(&f.value.0, f.value.1.clone()).map_err(at(&f.at)))
}

/// `-netdev`, then `-nic` and `-net` in their order; without any of them the card that a machine has by default, on a user-mode network:
/// whether that is so.
fn create_networks(vm: &Vm, class: &'static Class) -> Result<bool> {
    let (line, nets) = (&vm.options, &vm.nets);
    for netdev in &line.netdevs {
        nets.netdev_add(netdev.value.clone()).map_err(at(&netdev.at))?;
    }
    for nic in &line.nics {
        let (modern, opts) = &nic.value;
        let act = if *modern { options::nic::nic } else { options::nic::legacy };
        act(nets, opts).map_err(at(&nic.at))?;
    }
    let given = line.no_net || line.nodefaults || !line.netdevs.is_empty() || !line.nics.is_empty();
    if given || class.get::<MachineClass>().is_none_or(|c| c.default_nic.is_none()) {
        return Ok(false);
    }
    for kind in ["nic", "user"] {
        options::nic::legacy(nets, &options::nic::by_type(kind)).map_err(at(""))?;
    }
    Ok(true)
}

/// Opens a character device and shows it in the tree, its multiplexer's base too.
pub(crate) fn open_chardev(vm: &Vm, config: &chardev::Config) -> qom::Result<Arc<Channel>> {
    let generic = |e: chardev::Error| qom::Error::generic(e.to_string());
    let channel = vm.chardevs.open(config).map_err(generic)?;
    if let Backend::Vc { fixed } = config.backend {
        vm.text_consoles.lock().push(fixed);
    }
    let base = config.mux.then(|| vm.chardevs.find(&format!("{}-base", config.id))).flatten();
    for c in base.iter().chain([&channel]) {
        chardev::publish(vm.scope(), c)?;
    }
    Ok(channel)
}

/// Whether a property of the machine refers to an object: those that `-object` makes do not exist yet when the others are set.
fn is_link(machine: &Ref<Machine>, key: &str) -> bool {
    Ref::object(machine).properties().iter().any(|p| p.name == key && p.ty.starts_with("link<"))
}

/// `-machine memory-backend=ID` and its like.
fn set_machine_links(vm: &Vm, machine: &Ref<Machine>) -> Result<()> {
    let pairs = vm.options.machine.pairs.iter().filter(|(key, _)| is_link(machine, key));
    for (key, value) in pairs {
        machine.set_str(key, value).map_err(at(&vm.options.machine_at))?;
    }
    Ok(())
}

/// `-machine key=value`, and the options that are properties of the machine: `-m`, `-smp`, `-boot`, `-kernel` …
fn set_machine_properties(vm: &Vm, machine: &Ref<Machine>) -> Result<()> {
    let line = &vm.options;
    let mut structs: [(&str, &str, Map<String, Value>); 3] = Default::default();
    for (slot, (name, option, opts)) in structs.iter_mut().zip([
        ("smp", "-smp", &line.smp),
        ("memory", "-m", &line.memory),
        ("boot", "-boot", &line.boot),
    ]) {
        let pair = |(k, v): &(String, String)| {
            let key = if name == "memory" && k == "maxmem" { "max-size" } else { k.as_str() };
            // A bare `-m 64` counts MiB.
            let mib = (name, key) == ("memory", "size") && v.bytes().all(|b| b.is_ascii_digit());
            (key.to_owned(), Value::from(if mib { format!("{v}M") } else { v.clone() }))
        };
        *slot = (name, option, opts.pairs.iter().map(pair).collect());
    }
    // Other members, put together: a list is complete only with the last of them.
    let mut trees = Map::new();
    for (key, value) in &line.machine.pairs {
        if key == "type" || key == "accel" || is_link(machine, key) {
            continue;
        }
        let member =
            key.split_once('.').and_then(|(head, rest)| Some((structs.iter_mut().find(|s| s.0 == head)?, rest)));
        match member {
            Some((slot, rest)) => drop(slot.2.insert(rest.into(), value.clone().into())),
            None => match key.split_once('.') {
                Some((head, _)) if machine.has_property(head) => put(&mut trees, key, value),
                _ => machine.set_str(key, value).map_err(at(&line.machine_at))?,
            },
        }
    }
    for (name, tree) in trees {
        machine.set_input(&name, Input::Keyval(&tree)).map_err(at(&line.machine_at))?;
    }
    for (name, option, map) in structs.into_iter().filter(|s| !s.2.is_empty()) {
        machine.set_input(name, Input::Keyval(&map.into())).map_err(at(option))?;
    }
    if line.nographic {
        machine.set_str("graphics", "off").map_err(at("-nographic"))?;
    }
    set_boot_files(line, machine)
}

/// Puts `value` at a dotted path.
fn put(tree: &mut Map<String, Value>, path: &str, value: &str) {
    match path.split_once('.') {
        None => drop(tree.insert(path.to_owned(), value.into())),
        Some((head, rest)) => {
            if let Value::Object(inner) = tree.entry(head).or_insert_with(|| Map::new().into()) {
                put(inner, rest, value);
            }
        }
    }
}

fn set_boot_files(line: &CommandLine, machine: &Ref<Machine>) -> Result<()> {
    let files =
        [("kernel", &line.kernel), ("initrd", &line.initrd), ("append", &line.append), ("firmware", &line.bios)];
    for (name, value) in files {
        if let Some(v) = value {
            machine.set_str(name, v).map_err(at(&format!("-{}", if name == "firmware" { "bios" } else { name })))?;
        }
    }
    if machine.kernel.get().is_empty() {
        for (name, given) in
            [("append", !machine.append.get().is_empty()), ("initrd", !machine.initrd.get().is_empty())]
        {
            if given {
                return fail(format!("-{name} only allowed with -kernel option"));
            }
        }
    }
    Ok(())
}

/// `-accel` or `-machine accel=a:b`: the first one that works. Without either: TCG.
fn configure_accelerator(vm: &Vm, machine: &Ref<Machine>) -> Result<()> {
    let line = &vm.options;
    let from_machine = line.machine.get("accel");
    if from_machine.is_some() && !line.accels.is_empty() {
        return fail("The -accel and \"-machine accel=\" options are incompatible");
    }
    let accel = |name: &str| Located {
        at: format!("-machine accel={name}"),
        value: Accel { name: name.into(), props: vec![] },
    };
    let wanted: Vec<Located<Accel>> = match from_machine {
        Some(list) => list.split(':').filter(|n| !n.is_empty()).map(accel).collect(),
        None if line.accels.is_empty() => vec![Located { at: String::new(), value: accel("tcg").value }],
        None => line.accels.clone(),
    };
    let alone = wanted.len() == 1;
    let mut failed = false;
    for w in &wanted {
        match try_accelerator(vm, machine, &w.value) {
            Ok(()) => {
                if failed {
                    vm.report.say(&format!("falling back to {}", w.value.name));
                }
                return Ok(());
            }
            Err(e) if alone => return Err(at(&w.at)(e)),
            Err(e) => {
                vm.report.say(&format!("{}: {e}", w.at));
                failed = true;
            }
        }
    }
    fail("no accelerator found")
}

/// `-icount`, if it has the clock count instructions.
fn icount(line: &CommandLine) -> std::result::Result<Option<IcountConfig>, &'static str> {
    let on = |key: &str, default: bool| line.icount.get(key).and_then(size::boolean).unwrap_or(default);
    let (align, sleep) = (on("align", false), on("sleep", true));
    let Some(shift) = line.icount.get("shift") else {
        return if line.icount.get("align").is_some() {
            Err("Please specify shift option when using align")
        } else {
            Ok(None)
        };
    };
    if align && !sleep {
        return Err("align=on and sleep=off are incompatible");
    }
    let shift = if shift == "auto" {
        if align {
            return Err("shift=auto and align=on are incompatible");
        }
        if !sleep {
            return Err("shift=auto and sleep=off are incompatible");
        }
        None
    } else {
        let number = size::number(shift).and_then(|n| u32::try_from(n).ok());
        Some(number.filter(|n| *n <= accel::icount::MAX_SHIFT).ok_or("icount: Invalid shift value")?)
    };
    Ok(Some(IcountConfig { shift, align, sleep }))
}

/// `-dfilter`, `-perfmap`, `-jitdump`.
fn show(vm: &Vm, insight: &Insight) {
    let (line, pid) = (&vm.options, std::process::id());
    if let Some(ranges) = &line.dfilter {
        insight.set_ranges(ranges.clone());
    }
    let tell = |path: &str, what: &str, done: std::io::Result<()>| {
        if let Err(e) = done {
            vm.warn(&format!("Could not open {path}: {e}, proceeding without {what}"));
        }
    };
    if line.perfmap {
        let path = format!("/tmp/perf-{pid}.map");
        tell(&path, "perfmap", insight.start_perf_map(path.as_ref()));
    }
    if line.jitdump {
        let path = format!("./jit-{pid}.dump");
        tell(&path, "jitdump", insight.start_jit_dump(path.as_ref()));
    }
}

fn try_accelerator(vm: &Vm, machine: &Ref<Machine>, accel: &Accel) -> Result<()> {
    let known = hw_core::accel::names();
    if !known.contains(&accel.name) {
        let hint = if accel.name == "kvm" { ": it is not built yet, use tcg (and -cpu max)" } else { "" };
        return fail(format!("invalid accelerator {}{hint} (available: {})", accel.name, known.join(", ")));
    }
    let object = AccelObject::create(vm.scope(), &accel.name).map_err(at(""))?;
    for (key, value) in &accel.props {
        object.set_str(key, value).map_err(at(""))?;
    }
    if let Some(config) = icount(&vm.options).map_err(at("-icount"))? {
        let Some(tcg) = Ref::<TcgAccel>::new(Ref::object(&object).clone()) else {
            return fail("-icount is not allowed with hardware virtualization");
        };
        if accel.props.iter().any(|(k, v)| k == "thread" && v == "multi") {
            return fail("No MTTCG when icount is enabled");
        }
        tcg.set_icount(vm.core(), config);
    }
    object.init_machine(machine, &mut vm.core().lock()).map_err(at(""))?;
    if let Some(tcg) = vm.core().accel().and_then(Ref::<TcgAccel>::new) {
        show(vm, &tcg.group().insight);
    }
    Ok(())
}

/// `-global`, and what QEMU sets the same way.
fn register_globals(vm: &Vm, _machine: &Ref<Machine>) {
    for g in &vm.options.globals {
        let (driver, property, value) = &g.value;
        vm.scope().add_global(Global::new(Rank::User, driver.as_str(), property.as_str(), value.as_str()));
    }
    if vm.options.rtc.get("driftfix") == Some("slew") {
        vm.scope().add_global(Global::new(Rank::User, "mc146818rtc", "lost_tick_policy", "slew"));
    }
}

/// Types of objects that drives refer to.
const BEFORE_DRIVES: [&str; 1] = ["throttle-group"];

/// `-object`: those that must be there before drives are, or the others.
fn create_objects(vm: &Arc<Vm>, before_drives: bool) -> Result<()> {
    let when = |name: &str| BEFORE_DRIVES.contains(&name) == before_drives;
    for o in vm.options.objects.iter().filter(|o| !o.value.help && when(&o.value.type_name)) {
        object_add(vm, &o.value).map_err(at(&o.at))?;
    }
    Ok(())
}

pub(crate) fn object_add(vm: &Arc<Vm>, args: &PropArgs) -> qom::Result<()> {
    let id = args.id.as_deref().ok_or("Parameter 'id' is missing")?;
    let (props, text) = prop_map(&args.props);
    monitor::object::object_add(vm, &args.type_name, id, &props, text).map(drop)
}

/// Properties as a map; dotted keys of the text form become objects. Whether the leaves are text.
pub(crate) fn prop_map(props: &[(String, PropInput)]) -> (Map<String, Value>, bool) {
    let mut text = false;
    let pair = |(k, v): &(String, PropInput)| match v {
        PropInput::Json(v) => (k.clone(), v.clone()),
        PropInput::Text(t) => {
            text = true;
            (k.clone(), Value::from(t.as_str()))
        }
    };
    let map = props.iter().map(pair).collect();
    (map, text)
}

/// `-monitor`, `-qmp`, the default monitor, `-mon` and `mon:`, called `compat_monitorN` in this order, as are their character devices.
fn create_monitors(vm: &Arc<Vm>, ports: &Ports) -> Result<()> {
    let mut count = 0;
    let mut name = || {
        count += 1;
        format!("compat_monitor{}", count - 1)
    };
    let attach = |at_: &str, id: &str, chardev: &str, mode: MonitorMode, pretty: bool| {
        let mut props = Map::new();
        props.insert("chardev".into(), chardev.into());
        let type_name = match mode {
            MonitorMode::Control => {
                props.insert("pretty".into(), pretty.into());
                "monitor-qmp"
            }
            MonitorMode::Human => "monitor-hmp",
        };
        monitor::object::object_add(vm, type_name, id, &props, false).map(drop).map_err(at(at_))
    };
    let (by_id, own): (Vec<_>, Vec<_>) = vm.options.monitors.iter().partition(|m| m.value.by_id);
    for m in own {
        let id = name();
        let chardev = match from_short(&id, &m.value.chardev).map_err(at(&m.at))? {
            Short::None => continue,
            Short::Existing(chardev) => chardev,
            Short::New { config, .. } => open_chardev(vm, &config).map_err(at(&m.at))?.label().to_owned(),
        };
        attach(&m.at, &id, &chardev, m.value.mode, m.value.pretty)?;
    }
    if let Some(text) = &ports.default_monitor {
        let id = name();
        if let Short::New { config, .. } = from_short(&id, text).map_err(at(text))? {
            open_chardev(vm, &config).map_err(at(text))?;
            attach("", &id, &id, MonitorMode::Human, false)?;
        }
    }
    for m in by_id {
        attach(&m.at, &name(), &m.value.chardev, m.value.mode, m.value.pretty)?;
    }
    for port in ports.all() {
        if let Short::New { config, monitor: true } = &port.short {
            attach(&port.at, &name(), &config.id, MonitorMode::Human, false)?;
        }
    }
    hmp::check_table();
    Ok(())
}

/// `-qtest`.
fn create_qtest(vm: &Arc<Vm>) -> Result<()> {
    let Some(arg) = &vm.options.qtest else { return Ok(()) };
    let channel = match from_short("qtest", &arg.value).map_err(at(&arg.at))? {
        Short::None => return Ok(()),
        Short::Existing(id) => chardev::find(vm.scope(), &id).map_err(at(&arg.at))?,
        Short::New { config, .. } => open_chardev(vm, &config).map_err(at(&arg.at))?,
    };
    let server = qtest::Server::new(vm, &channel, vm.options.qtest_log.as_deref()).map_err(at(&arg.at))?;
    *vm.qtest.lock() = Some(server);
    Ok(())
}

/// What boards ask for besides the machine's properties: which character devices the ports use, clock, names, blobs.
fn configure_board(vm: &Vm, machine: &Ref<Machine>, ports: Ports) -> Result<()> {
    let line = &vm.options;
    let mut fw_cfg = vec![];
    for f in &line.fw_cfg {
        let (name, data) = match &f.value {
            FwCfgArg::Text { name, text } => (name, text.clone().into_bytes()),
            FwCfgArg::File { name, path } => (
                name,
                std::fs::read(path).map_err(|e| StartError(format!("{}: can't load {}: {e}", f.at, path.display())))?,
            ),
        };
        if !name.starts_with("opt/") {
            vm.warn(&format!("{}: externally provided fw_cfg item names should be prefixed with \"opt/\"", f.at));
        }
        fw_cfg.push((name.clone(), data));
    }
    if let Some(cpu) = &line.cpu {
        crate::cpu::select(vm, machine, &cpu.value).map_err(at(&cpu.at))?;
    }
    vm.core().roms.set_search_path(crate::firmware::folders(&line.firmware_dirs));
    vm.core().configure(BoardConfig {
        serial: ports.serial.iter().map(|p| p.chardev()).collect(),
        parallel: ports.parallel.iter().map(|p| p.chardev()).collect(),
        debugcon: ports.debugcon.as_ref().and_then(|p| p.chardev()),
        vga: ports.vga,
        rtc: rtc(line).map_err(at("-rtc"))?,
        name: line.name.text("guest"),
        uuid: line.uuid.clone(),
        fw_cfg,
        nographic: line.nographic,
        no_reboot: line.action.reboot == "shutdown",
    });
    Ok(())
}

fn rtc(line: &CommandLine) -> std::result::Result<RtcConfig, OptError> {
    let base = match line.rtc.get("base") {
        None | Some("utc") => RtcBase::Utc,
        Some("localtime") => RtcBase::Local,
        Some(date) => RtcBase::Date(crate::date::parse(date).ok_or_else(|| OptError::Choice {
            key: "base".into(),
            value: date.into(),
            expected: "utc, localtime, 2026-11-25T21:30:00 or 2026-11-25".into(),
        })?),
    };
    let clock = match line.rtc.get("clock") {
        Some("rt") => ClockType::Realtime,
        Some("vm") => ClockType::Virtual,
        _ => ClockType::Host,
    };
    Ok(RtcConfig { base, clock })
}

/// Memory, then the board: CPUs, chipset, devices.
fn init_board(vm: &Vm, machine: &Ref<Machine>) -> Result<()> {
    machine.set_up_memory().map_err(at(""))?;
    machine.run_board_init(&mut vm.core().lock()).map_err(at(""))?;
    let mut has_fw_cfg = false;
    vm.scope().root().walk(&mut |o| has_fw_cfg |= o.is_a("fw_cfg"));
    match vm.options.fw_cfg.first() {
        Some(f) if !has_fw_cfg => fail(format!("{}: fw_cfg device not available", f.at)),
        _ => Ok(()),
    }
}

/// The screens of `vc` character devices; those of the board's devices come first.
fn create_text_consoles(vm: &Vm) -> Result<()> {
    let waiting = std::mem::take(&mut *vm.text_consoles.lock());
    waiting.into_iter().try_for_each(|fixed| ui::create_text_console(vm.scope(), fixed).map(drop)).map_err(at(""))
}

/// `-device`, then the functions of `-drive if=virtio`.
fn create_devices(vm: &Vm) -> Result<()> {
    for d in vm.options.devices.iter().filter(|d| !d.value.help) {
        device_add(vm, &d.value).map_err(at(&d.at))?;
    }
    let on_virtio = |b: &&Arc<block::Backend>| b.legacy().is_some_and(|l| l.interface == block::Interface::Virtio);
    for drive in vm.blocks.backends().iter().filter(on_virtio) {
        let props = [("drive".to_owned(), Value::from(drive.name()))].into_iter().collect();
        let add = DeviceAdd { driver: "virtio-blk", props, ..DeviceAdd::default() };
        let made = hw_core::device_add(vm.scope(), &mut vm.core().lock(), &add);
        made.map_err(at(&format!("-drive {}", drive.name())))?;
    }
    Ok(())
}

pub(crate) fn device_add(vm: &Vm, args: &PropArgs) -> qom::Result<()> {
    let (mut props, text) = prop_map(&args.props);
    let bus = match props.shift_remove("bus") {
        Some(Value::String(b)) => Some(b),
        Some(_) => return Err("Invalid parameter type for 'bus', expected: string".into()),
        None => None,
    };
    let add = DeviceAdd { driver: &args.type_name, id: args.id.as_deref(), bus: bus.as_deref(), props, text };
    hw_core::device_add(vm.scope(), &mut vm.core().lock(), &add).map(drop)
}

/// End of start-up: tables, first reset, run state.
fn finish(vm: &Arc<Vm>, machine: &Ref<Machine>) {
    machine.creation_done(&mut vm.core().lock());
    vm.scope().unused_globals().iter().for_each(|w| vm.warn(w));
    vm.nets.unconnected().iter().for_each(|w| vm.warn(w));
    vm.reset(ShutdownCause::None);
    let core = vm.core();
    core.requests.set_state(RunState::PreLaunch);
    if !vm.options.stopped {
        vm.resume();
    }
}
