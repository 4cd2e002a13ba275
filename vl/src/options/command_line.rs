//! What the command line said, before any of it is acted on.

use super::opts::Opts;
use serde_json::Value;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Something with the words it came from, for errors: `-device e1000`.
#[derive(Clone, Debug, PartialEq)]
pub struct Located<T> {
    /// Option and argument as given.
    pub at: String,
    /// What it means.
    pub value: T,
}

/// A property's value as given.
#[derive(Clone, Debug, PartialEq)]
pub enum PropInput {
    /// `key=text`.
    Text(String),
    /// From a JSON argument.
    Json(Value),
}

impl PropInput {
    /// The text, or the JSON string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(t) => Some(t),
            Self::Json(v) => v.as_str(),
        }
    }
}

/// A type to create, its id and its properties: `-device`, `-object`, `device_add`, `object-add`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PropArgs {
    /// Type name (`driver`, `qom-type`); empty when only `help` was given.
    pub type_name: String,
    /// Id, if one was given.
    pub id: Option<String>,
    /// Everything else in its order.
    pub props: Vec<(String, PropInput)>,
    /// `help` was given.
    pub help: bool,
}

/// `-accel`.
#[derive(Clone, Debug, PartialEq)]
pub struct Accel {
    /// Name: `tcg`, `kvm`, `qtest`.
    pub name: String,
    /// Its properties.
    pub props: Vec<(String, String)>,
}

/// What a monitor speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MonitorMode {
    /// `readline`: the human monitor.
    #[default]
    Human,
    /// `control`: QMP.
    Control,
}

/// `-monitor`, `-qmp`, `-qmp-pretty`, `-mon`.
#[derive(Clone, Debug, PartialEq)]
pub struct MonitorArg {
    /// Character device: a short form (`stdio`) or, with `by_id`, the id of a `-chardev`.
    pub chardev: String,
    /// `-mon chardev=…`.
    pub by_id: bool,
    /// HMP or QMP.
    pub mode: MonitorMode,
    /// Replies over several lines.
    pub pretty: bool,
}

/// `-action`, `-no-reboot`, `-no-shutdown`, `-watchdog-action`: QEMU's defaults unless set.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// `reset` or `shutdown`.
    pub reboot: &'static str,
    /// `poweroff` or `pause`.
    pub shutdown: &'static str,
    /// `pause`, `shutdown`, `exit-failure` or `none`.
    pub panic: &'static str,
    /// What a watchdog does.
    pub watchdog: &'static str,
}

impl Default for Action {
    fn default() -> Self {
        Self { reboot: "reset", shutdown: "poweroff", panic: "shutdown", watchdog: "reset" }
    }
}

/// `-fw_cfg`.
#[derive(Clone, Debug, PartialEq)]
pub enum FwCfgArg {
    /// `file=`: contents of a host file.
    File {
        /// Name the guest sees.
        name: String,
        /// Host file.
        path: PathBuf,
    },
    /// `string=`: the text without a terminating zero.
    Text {
        /// Name the guest sees.
        name: String,
        /// The text.
        text: String,
    },
}

/// Everything the options said. Plain data: nothing has been created, opened or checked against the types yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommandLine {
    /// `-machine`, `-M`, merged; `type` and `accel` among the pairs.
    pub machine: Opts,
    /// Where the machine was named last.
    pub machine_at: String,
    /// `-accel`, `-enable-kvm`, in order.
    pub accels: Vec<Located<Accel>>,
    /// `-accel help`.
    pub accel_help: bool,
    /// `-cpu`.
    pub cpu: Option<Located<String>>,
    /// `-m`, merged.
    pub memory: Opts,
    /// `-smp`, merged.
    pub smp: Opts,
    /// `-kernel`.
    pub kernel: Option<String>,
    /// `-initrd`.
    pub initrd: Option<String>,
    /// `-append`.
    pub append: Option<String>,
    /// `-bios`.
    pub bios: Option<String>,
    /// `-L`, in order.
    pub firmware_dirs: Vec<PathBuf>,
    /// `-L help`.
    pub firmware_dirs_help: bool,
    /// `-boot`, merged.
    pub boot: Opts,
    /// `-device`.
    pub devices: Vec<Located<PropArgs>>,
    /// `-object`.
    pub objects: Vec<Located<PropArgs>>,
    /// `-global`: driver, property, value.
    pub globals: Vec<Located<(String, String, String)>>,
    /// `-chardev`.
    pub chardevs: Vec<Located<Opts>>,
    /// `-blockdev`.
    pub blockdevs: Vec<Located<block::Opts>>,
    /// `-drive` and its short forms, in order.
    pub drives: Vec<Located<Opts>>,
    /// `-snapshot`.
    pub snapshot: bool,
    /// `-serial`, in order.
    pub serials: Vec<Located<String>>,
    /// `-parallel`, in order.
    pub parallels: Vec<Located<String>>,
    /// `-debugcon`.
    pub debugcon: Option<Located<String>>,
    /// Monitors, in order.
    pub monitors: Vec<Located<MonitorArg>>,
    /// `-monitor`, `-qmp` or `-mon` was given: no default monitor.
    pub monitor_given: bool,
    /// `-display`.
    pub display: Option<String>,
    /// `-nographic`.
    pub nographic: bool,
    /// `-vga`.
    pub vga: Option<Located<String>>,
    /// `-fsdev` and `-virtfs`: id and folder.
    pub fsdevs: Vec<Located<(String, hw::fsdev::FsDev)>>,
    /// `-netdev`.
    pub netdevs: Vec<Located<net::Opts>>,
    /// `-nic` and `-net`, in order; whether it was `-nic`.
    pub nics: Vec<Located<(bool, Opts)>>,
    /// `-nic none` or `-net none`: no default card.
    pub no_net: bool,
    /// `-nodefaults`.
    pub nodefaults: bool,
    /// `-no-user-config`.
    pub no_user_config: bool,
    /// `-S`.
    pub stopped: bool,
    /// Reactions to guest events.
    pub action: Action,
    /// `-name`, merged.
    pub name: Opts,
    /// `-uuid`, canonical text.
    pub uuid: Option<String>,
    /// `-rtc`, merged.
    pub rtc: Opts,
    /// `-fw_cfg`.
    pub fw_cfg: Vec<Located<FwCfgArg>>,
    /// `-D`.
    pub log_file: Option<PathBuf>,
    /// `-d`.
    pub log_items: Vec<String>,
    /// `-dfilter`: the last one counts.
    pub dfilter: Option<Vec<RangeInclusive<u64>>>,
    /// `-perfmap`.
    pub perfmap: bool,
    /// `-jitdump`.
    pub jitdump: bool,
    /// `-trace`.
    pub trace: Vec<Opts>,
    /// `-icount`, merged.
    pub icount: Opts,
    /// `-pidfile`.
    pub pidfile: Option<PathBuf>,
    /// `-daemonize`.
    pub daemonize: bool,
    /// `-run-with`, merged.
    pub run_with: Opts,
    /// `-msg`, merged.
    pub msg: Opts,
    /// `-qtest`.
    pub qtest: Option<Located<String>>,
    /// `-qtest-log`.
    pub qtest_log: Option<String>,
    /// `-echr`: the mux escape key.
    pub escape_char: Option<u8>,
    /// Warnings gathered while parsing, in full.
    pub warnings: Vec<String>,
}
