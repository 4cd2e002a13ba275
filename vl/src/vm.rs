//! One machine and everything around it: world, event loop, character devices, monitors, run state.
//!
//! `Vm` has no process-wide state: two of them run side by side. Terminal and signals belong to whoever owns the process (the
//! `qomet` binary), which hands in what is needed through [`Env`].

use crate::log::Log;
use crate::monitor::Monitors;
use crate::options::{Action, CommandLine, Parsed};
use crate::report::Reporter;
use crate::{lists, options, qtest, start};
use chardev::{Host, Hub};
use hw_core::event_loop::EventLoop;
use hw_core::{Core, Machine, Request, ShutdownCause};
use parking_lot::Mutex;
use qom::{Ref, Scope, World};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a machine gets from the process it lives in.
pub struct Env {
    /// Program name for messages.
    pub program: String,
    /// Where messages go.
    pub report: Reporter,
    /// Whether the process was asked to end (SIGTERM and the like) while start-up waits for something.
    pub interrupted: Box<dyn Fn() -> bool + Send + Sync>,
    /// The process's log, if monitors may change what is logged.
    pub log: Option<Log>,
}

impl Env {
    /// Messages to standard error, never interrupted: for embedding.
    pub fn plain(program: &str) -> Self {
        Self { program: program.into(), report: Reporter::stderr(program), interrupted: Box::new(|| false), log: None }
    }
}

/// What a command line led to.
pub enum Started {
    /// A machine, built, not yet running its main loop.
    Vm(Arc<Vm>),
    /// A text to print: help, version, a list.
    Text(String),
}

/// Why start-up failed: one line for the user.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// One machine.
pub struct Vm {
    /// What the command line said.
    pub options: CommandLine,
    /// Host events.
    pub events: EventLoop,
    /// Character devices.
    pub chardevs: Hub,
    /// Block nodes and drives.
    pub blocks: Arc<block::Blocks>,
    /// Network clients.
    pub nets: Arc<net::Nets>,
    /// `vc` character devices without their screens yet: whether their size is fixed.
    pub(crate) text_consoles: Mutex<Vec<bool>>,
    /// QMP and HMP.
    pub monitors: Monitors,
    /// What leaves the machine when it shuts down or resets.
    pub(crate) action: Mutex<Action>,
    /// The guest slept when it was stopped: it goes on sleeping.
    pub(crate) slept: AtomicBool,
    /// Status to end with, once that is decided.
    pub(crate) exit: Mutex<Option<i32>>,
    pub(crate) report: Arc<Reporter>,
    pub(crate) log: Option<Log>,
    /// The pointer's last position and the buttons held, as monitors moved it.
    pub(crate) pointer: Mutex<ui::input::PointerEvent>,
    /// Path of the pointer that `mouse_set` chose.
    pub(crate) chosen_pointer: Mutex<Option<String>>,
    pub(crate) qtest: Mutex<Option<Arc<qtest::Server>>>,
    core: Arc<Core>,
    world: World,
}

impl Vm {
    /// Parses `args` (without the program's name) and builds what they ask for, up to the start of the main loop.
    ///
    /// # Errors
    /// Whatever is wrong with them; nothing is left behind.
    pub fn start(args: &[String], env: Env) -> Result<Started, StartError> {
        let line = match options::parse(args).map_err(|e| StartError(e.0))? {
            Parsed::Help => return Ok(Started::Text(options::help::help(&env.program))),
            Parsed::Version => return Ok(Started::Text(options::help::version())),
            Parsed::Run(line) => *line,
        };
        Self::from_options(line, env)
    }

    /// [`Vm::start`] for a parsed command line.
    ///
    /// # Errors
    /// As [`Vm::start`].
    pub fn from_options(line: CommandLine, env: Env) -> Result<Started, StartError> {
        if let Some(text) = lists::requested(&line)? {
            return Ok(Started::Text(text));
        }
        start::start(line, env).map(Started::Vm)
    }

    /// An empty world for `line`: core, loop and hub, no machine yet.
    pub(crate) fn empty(line: CommandLine, env: Env) -> Result<Arc<Self>, StartError> {
        let events = EventLoop::new().map_err(|e| StartError(format!("cannot make an event loop: {e}")))?;
        let core = Core::new();
        let report = Arc::new(env.report.for_line(&line));
        let requests = core.requests.clone();
        let for_chardevs = report.clone();
        let chardevs = Hub::new(Host {
            events: events.clone(),
            quit: Box::new(move || requests.post(Request::Shutdown(ShutdownCause::HostQmpQuit))),
            report: Box::new(move |text| for_chardevs.say(text)),
            interrupted: env.interrupted,
            escape: line.escape_char.unwrap_or(1),
            daemonize: line.daemonize,
        });
        let wake = events.clone();
        core.requests.set_hook(move || wake.wake());
        let wake = events.clone();
        core.clocks.set_wake(move |within| wake.wake_within(within));
        let blocks = block::Blocks::of(&core);
        let (wake, weak) = (events.clone(), Arc::downgrade(&blocks));
        blocks.set_wake(move || {
            let weak = weak.clone();
            wake.post(move || {
                if let Some(blocks) = weak.upgrade() {
                    blocks.deliver();
                }
            });
        });
        let for_blocks = report.clone();
        blocks.set_report(move |text| for_blocks.say(text));
        let nets = net::Nets::of(&core);
        nets.set_events(events.clone());
        let world = World::new(core.clone());
        let vm = Arc::new(Self {
            action: Mutex::new(line.action.clone()),
            options: line,
            events,
            chardevs,
            blocks,
            nets,
            text_consoles: Mutex::default(),
            monitors: Monitors::default(),
            slept: AtomicBool::default(),
            exit: Mutex::default(),
            pointer: Mutex::default(),
            chosen_pointer: Mutex::default(),
            report,
            log: env.log,
            qtest: Mutex::default(),
            core,
            world,
        });
        let weak = Arc::downgrade(&vm);
        vm.blocks.set_event_sink(move |event, data| {
            if let Some(vm) = weak.upgrade() {
                vm.emit(event, data);
            }
        });
        let weak = Arc::downgrade(&vm);
        vm.blocks.set_parked(move |f| match weak.upgrade() {
            Some(vm) => vm.parked(f),
            None => f(),
        });
        let weak = Arc::downgrade(&vm);
        vm.nets.set_event_sink(move |event, data| {
            if let Some(vm) = weak.upgrade() {
                vm.emit(event, data);
            }
        });
        let weak = Arc::downgrade(&vm);
        vm.nets.set_guest_ports(move |label, device| match weak.upgrade() {
            Some(vm) => crate::guestfwd::open(&vm, label, device),
            None => Err(qom::Error::generic("the machine is gone")),
        });
        let weak = Arc::downgrade(&vm);
        vm.core.service::<hw::misc::guest_events::GuestEvents>().set_sink(move |event| {
            if let Some(vm) = weak.upgrade() {
                vm.guest_event(event);
            }
        });
        let weak = Arc::downgrade(&vm.nets);
        vm.core.events.vm_state.add(move |_, s| {
            if let Some(nets) = weak.upgrade() {
                nets.set_running(s.running);
            }
        });
        let for_warnings = vm.report.clone();
        vm.core.events.warning.add(move |_, text| for_warnings.say(&format!("warning: {text}")));
        let weak = Arc::downgrade(&vm);
        vm.core.set_event_sink(Box::new(move |event, data| {
            if let Some(vm) = weak.upgrade() {
                vm.emit(event, data);
            }
        }));
        let weak = Arc::downgrade(&vm);
        vm.core.events.device_deleted.add(move |_, deleted| {
            let Some(vm) = weak.upgrade() else { return };
            let mut data = serde_json::json!({"path": deleted.path});
            if let (Some(id), Some(map)) = (&deleted.id, data.as_object_mut()) {
                map.insert("device".into(), id.as_str().into());
            }
            vm.emit("DEVICE_DELETED", data);
            let (blocks, path) = (vm.blocks.clone(), deleted.path.clone());
            vm.events.post(move || blocks.device_deleted(&path));
        });
        Ok(vm)
    }

    /// The machine's core: lock, memory, clocks, vCPUs.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The machine's world.
    pub fn scope(&self) -> &Arc<Scope> {
        self.world.scope()
    }

    /// The machine object, once it exists.
    pub fn machine(&self) -> Option<Ref<Machine>> {
        Machine::of(self.scope())
    }

    /// `-name`.
    pub fn name(&self) -> Option<&str> {
        self.options.name.get("guest")
    }

    /// A message to the user.
    pub fn say(&self, message: &str) {
        self.report.say(message);
    }

    /// A warning to the user.
    pub fn warn(&self, message: &str) {
        self.report.say(&format!("warning: {message}"));
    }

    /// Takes everything apart in order: vCPUs, monitors, devices, character devices.
    pub(crate) fn tear_down(&self) {
        self.core.cpus.pause_all(&self.core);
        self.blocks.drain();
        self.core.events.exit.notify(&mut self.core.lock(), &());
        self.core.cpus.end_all();
        let limit = std::time::Duration::from_millis(500);
        for channel in self.chardevs.all() {
            channel.drain(limit);
        }
        drop(self.qtest.lock().take());
        self.monitors.close(self.scope());
        self.chardevs.close_all();
        self.blocks.close();
        self.nets.close();
        self.core.shut_down();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.tear_down();
    }
}
