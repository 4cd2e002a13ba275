//! The parameters of each `key=value` list, as `query-command-line-options` reports them.

/// What a parameter's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// `on` or `off`.
    Bool,
    /// An unsigned number.
    Number,
    /// A number of bytes.
    Size,
    /// A number that may be negative.
    Signed,
    /// QEMU has it, this program not yet: an error that says so, and not reported.
    NotBuilt,
}

impl Kind {
    /// QAPI's CommandLineParameterType.
    pub fn qapi(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Bool => "boolean",
            Self::Number | Self::Signed => "number",
            Self::Size => "size",
            Self::NotBuilt => "none",
        }
    }
}

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its key.
    pub name: &'static str,
    /// Its kind of value.
    pub kind: Kind,
}

/// One list of parameters.
#[derive(Clone, Copy, Debug)]
pub struct Desc {
    /// Name in `query-command-line-options`.
    pub name: &'static str,
    /// Key of a first item without one.
    pub implied: Option<&'static str>,
    /// The keys; none: whatever the object it goes to has.
    pub params: &'static [Param],
    /// Whether `id=` is the list's own name.
    pub takes_id: bool,
    /// A word without `=` is an error instead of a switch.
    pub strict: bool,
    /// Takes other keys as well: options of what the list is about.
    pub open: bool,
}

macro_rules! desc {
    ($(#[$doc:meta])* $id:ident = $name:literal, $implied:expr, id $takes_id:literal, strict $strict:literal; $($kind:ident: $($key:literal)*;)*) => {
        $(#[$doc])*
        pub static $id: Desc = Desc {
            name: $name, implied: $implied, takes_id: $takes_id, strict: $strict, open: false,
            params: &[$($(Param { name: $key, kind: Kind::$kind },)*)*],
        };
    };
}

desc! {
    /// `-machine`: everything else is a property of the machine.
    MACHINE = "machine", Some("type"), id false, strict true;
}
desc! {
    /// `-accel`: everything else is a property of the accelerator.
    ACCEL = "accel", Some("accel"), id false, strict false;
}
desc! {
    /// `-device`.
    DEVICE = "device", Some("driver"), id true, strict false;
}
desc! {
    /// `-object`.
    OBJECT = "object", Some("qom-type"), id true, strict true;
}
desc! {
    /// `-action`.
    ACTION = "action", None, id false, strict false;
    Text: "panic" "reboot" "shutdown" "watchdog";
}
desc! {
    /// `-boot`.
    BOOT = "boot-opts", Some("order"), id false, strict false;
    Bool: "menu" "strict";
    Text: "once" "order" "splash";
    Number: "splash-time";
    Signed: "reboot-timeout";
}
desc! {
    /// `-chardev`.
    CHARDEV = "chardev", Some("backend"), id true, strict false;
    Bool: "abstract" "append" "delay" "ipv4" "ipv6" "logappend" "mux" "nodelay" "server" "signal" "telnet" "wait";
    Text: "backend" "chardev" "fd" "host" "input-path" "logfile" "path" "port";
    Number: "cols" "height" "reconnect-ms" "rows" "to" "width";
    NotBuilt: "chardevs.0" "chardevs.1" "chardevs.2" "chardevs.3" "clipboard" "debug" "encoding" "localaddr" "localport"
              "logtimestamp" "mouse" "name" "tight" "tls-authz" "tls-creds" "tn3270" "websocket";
    Size: "size";
}
/// `-blockdev`: all keys are options of the node.
pub static BLOCKDEV: Desc =
    Desc { name: "blockdev", implied: Some("driver"), params: &[], takes_id: false, strict: true, open: true };

/// `-netdev`: all keys are options of the backend.
pub static NETDEV: Desc =
    Desc { name: "netdev", implied: Some("type"), params: &[], takes_id: false, strict: true, open: true };
/// `-nic`, `-net`: keys of the card, and of the backend.
pub static NIC: Desc =
    Desc { name: "nic", implied: Some("type"), params: &[], takes_id: true, strict: true, open: true };

desc! {
    /// The keys of [`DRIVE`] that QEMU names.
    DRIVE_KEYS = "drive", None, id true, strict false;
    Bool: "auto-read-only" "cache.direct" "cache.no-flush" "cache.writeback" "copy-on-read" "force-share" "read-only"
          "snapshot";
    Text: "aio" "detect-zeroes" "discard" "driver" "file" "format" "if" "media" "node-name" "rerror"
          "throttling.group" "werror";
    Number: "bus" "index" "throttling.bps-read" "throttling.bps-read-max" "throttling.bps-read-max-length"
            "throttling.bps-total" "throttling.bps-total-max" "throttling.bps-total-max-length"
            "throttling.bps-write" "throttling.bps-write-max" "throttling.bps-write-max-length"
            "throttling.iops-read" "throttling.iops-read-max" "throttling.iops-read-max-length"
            "throttling.iops-size" "throttling.iops-total" "throttling.iops-total-max"
            "throttling.iops-total-max-length" "throttling.iops-write" "throttling.iops-write-max"
            "throttling.iops-write-max-length" "unit";
    NotBuilt: "active" "group" "stats-account-failed" "stats-account-invalid";
}

/// `-drive`: keys it does not name are options of the node.
pub static DRIVE: Desc = Desc { open: true, ..DRIVE_KEYS };

desc! {
    /// `-fsdev`.
    FSDEV = "fsdev", Some("fsdriver"), id true, strict false;
    Text: "fsdriver" "multidevs" "path" "security_model";
    Bool: "readonly";
    Number: "dmode" "fmode" "max_xattr";
    NotBuilt: "sock_fd" "socket" "throttling.bps-read" "throttling.bps-read-max" "throttling.bps-read-max-length"
              "throttling.bps-total" "throttling.bps-total-max" "throttling.bps-total-max-length"
              "throttling.bps-write" "throttling.bps-write-max" "throttling.bps-write-max-length"
              "throttling.iops-read" "throttling.iops-read-max" "throttling.iops-read-max-length"
              "throttling.iops-size" "throttling.iops-total" "throttling.iops-total-max"
              "throttling.iops-total-max-length" "throttling.iops-write" "throttling.iops-write-max"
              "throttling.iops-write-max-length" "writeout";
}
desc! {
    /// `-virtfs`.
    VIRTFS = "virtfs", Some("fsdriver"), id true, strict false;
    Text: "fsdriver" "mount_tag" "multidevs" "path" "security_model";
    Bool: "readonly";
    Number: "dmode" "fmode" "max_xattr";
    NotBuilt: "sock_fd" "socket" "writeout";
}
desc! {
    /// `-fw_cfg`.
    FW_CFG = "fw_cfg", Some("name"), id false, strict false;
    Text: "file" "name" "string";
    NotBuilt: "gen_id";
}
desc! {
    /// `-global driver=…,property=…,value=…`.
    GLOBAL = "global", None, id false, strict false;
    Text: "driver" "property" "value";
}
desc! {
    /// `-icount`.
    ICOUNT = "icount", Some("shift"), id false, strict false;
    Bool: "align" "sleep";
    Text: "shift";
    NotBuilt: "rr" "rrfile" "rrsnapshot";
}
desc! {
    /// `-m`.
    MEMORY = "memory", Some("size"), id false, strict false;
    Size: "maxmem" "size";
    Number: "slots";
}
desc! {
    /// `-mon`.
    MON = "mon", Some("chardev"), id true, strict false;
    Text: "chardev" "mode";
    Bool: "pretty";
}
desc! {
    /// `-msg`.
    MSG = "msg", None, id false, strict false;
    Bool: "guest-name" "timestamp";
}
desc! {
    /// `-name`.
    NAME = "name", Some("guest"), id false, strict false;
    Bool: "debug-threads";
    Text: "guest" "process";
}
desc! {
    /// `-rtc`.
    RTC = "rtc", None, id false, strict false;
    Text: "base" "clock" "driftfix";
}
desc! {
    /// `-run-with`.
    RUN_WITH = "run-with", None, id false, strict false;
    Bool: "exit-with-parent";
    Text: "chroot";
    NotBuilt: "async-teardown" "user";
}
desc! {
    /// `-smp`.
    SMP = "smp-opts", Some("cpus"), id false, strict false;
    Number: "books" "clusters" "cores" "cpus" "dies" "drawers" "maxcpus" "modules" "sockets" "threads";
}
desc! {
    /// `-trace`.
    TRACE = "trace", Some("enable"), id false, strict false;
    Text: "enable" "events" "file";
}

impl Desc {
    /// The keys that there are.
    pub fn built(&self) -> impl Iterator<Item = &'static Param> {
        self.params.iter().filter(|p| p.kind != Kind::NotBuilt)
    }
}

/// Every list, for `query-command-line-options`.
pub static ALL: &[&Desc] = &[
    &ACCEL, &ACTION, &BOOT, &CHARDEV, &DEVICE, &DRIVE, &FSDEV, &FW_CFG, &GLOBAL, &ICOUNT, &MACHINE, &MEMORY, &MON,
    &MSG, &NAME, &OBJECT, &RTC, &RUN_WITH, &SMP, &TRACE, &VIRTFS,
];
