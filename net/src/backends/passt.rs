//! `passt`: the user-mode network of a program of that name, which is started for the backend and spoken to over a socket pair. Options of
//! QAPI's `NetdevPasst` become arguments of passt(1); `param=` adds any others.
//!
//! The program gets the socket as descriptor 3, goes into the background when it is ready, and leaves its process id in the file that
//! `--pid` names. It is ended with the backend, and started again when it ends by itself.
//!
//! Not here: `vhost-user=on`.

use super::stream::with_program;
use crate::backend::BackendDef;
use crate::client::{Client, End};
use crate::nets::Nets;
use hw_core::opts::Opts;
use parking_lot::Mutex;
use qom::{Error, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{self, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time until the program is in the background.
const PATIENCE: Duration = Duration::from_secs(20);
/// Descriptor 3 is what standard input was. (A child gets nothing but the three standard descriptors from `Command`.)
const LAUNCH: &str = r#"exec "$@" 3<&0 </dev/null"#;
/// What a shell ends with that finds no such program, or one that it may not start.
const NOT_STARTED: [i32; 2] = [126, 127];

/// How an option becomes arguments.
enum Form {
    /// The argument, then the value.
    Text,
    /// The same, of a number.
    Number,
    /// The argument alone, if it is off.
    Off,
    /// The argument alone, if it is on.
    On,
    /// The argument, then all values with this between them.
    Joined(&'static str),
}

/// Options and arguments, passt(1).
#[rustfmt::skip]
const OPTIONS: &[(&str, &str, Form)] = &[
    ("mtu", "--mtu", Form::Number),
    ("address", "--address", Form::Text),
    ("netmask", "--netmask", Form::Text),
    ("mac", "--mac-addr", Form::Text),
    ("gateway", "--gateway", Form::Text),
    ("interface", "--interface", Form::Text),
    ("outbound", "--outbound", Form::Text),
    ("outbound-if4", "--outbound-if4", Form::Text),
    ("outbound-if6", "--outbound-if6", Form::Text),
    ("dns", "--dns", Form::Text),
    ("fqdn", "--fqdn", Form::Text),
    ("dhcp-dns", "--no-dhcp-dns", Form::Off),
    ("dhcp-search", "--no-dhcp-search", Form::Off),
    ("map-host-loopback", "--map-host-loopback", Form::Text),
    ("map-guest-addr", "--map-guest-addr", Form::Text),
    ("dns-forward", "--dns-forward", Form::Text),
    ("dns-host", "--dns-host", Form::Text),
    ("tcp", "--no-tcp", Form::Off),
    ("udp", "--no-udp", Form::Off),
    ("icmp", "--no-icmp", Form::Off),
    ("dhcp", "--no-dhcp", Form::Off),
    ("ndp", "--no-ndp", Form::Off),
    ("dhcpv6", "--no-dhcpv6", Form::Off),
    ("ra", "--no-ra", Form::Off),
    ("freebind", "--freebind", Form::On),
    ("ipv4", "--ipv6-only", Form::Off),
    ("ipv6", "--ipv4-only", Form::Off),
    ("search", "--search", Form::Joined(" ")),
    ("tcp-ports", "--tcp-ports", Form::Joined(",")),
    ("udp-ports", "--udp-ports", Form::Joined(",")),
];

/// Takes the options out: the program, and its arguments but for `--pid` and `--fd`.
fn arguments(opts: &mut Opts) -> Result<Vec<String>> {
    let mut args = vec![opts.take_str("path")?.unwrap_or_else(|| "passt".into())];
    if opts.take_bool("vhost-user")? == Some(true) {
        return Err(Error::generic("vhost-user=on is not built yet: passt is reached over its stream socket"));
    }
    if opts.take_bool("quiet")? != Some(false) {
        args.push("--quiet".into());
    }
    for (key, argument, form) in OPTIONS {
        let value = match form {
            Form::Text => opts.take_str(key)?.map(Some),
            Form::Number => opts.take_number(key)?.map(|n| Some(n.to_string())),
            Form::Off => opts.take_bool(key)?.filter(|on| !on).map(|_| None),
            Form::On => opts.take_bool(key)?.filter(|on| *on).map(|_| None),
            Form::Joined(between) => {
                Some(opts.take_list(key)?).filter(|l| !l.is_empty()).map(|l| Some(l.join(between)))
            }
        };
        if let Some(value) = value {
            args.push((*argument).into());
            args.extend(value);
        }
    }
    args.extend(opts.take_list("param")?);
    Ok(args)
}

/// One that runs.
struct Running {
    id: i32,
    /// The process itself: its number may be another's by the time it is ended.
    process: Option<OwnedFd>,
}

/// The program of a backend.
pub(super) struct Program {
    /// Its name or path, then its arguments.
    args: Vec<String>,
    running: Mutex<Option<Running>>,
}

impl Program {
    /// As `info network` shows it.
    pub fn show(&self) -> String {
        self.running.lock().as_ref().map_or_else(|| "passt".into(), |r| format!("pid {}", r.id))
    }

    /// Starts it and waits until it is in the background; our end of its socket.
    ///
    /// # Errors
    /// It cannot be started, ends with an error, or does not become ready in time.
    pub fn start(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let file = PidFile::new()?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", LAUNCH, "sh"]).args(&self.args).arg("--pid").arg(&file.path).args(["--fd", "3"]);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        let child = command.spawn().map_err(|e| io::Error::other(format!("Error creating daemon: {e}")))?;
        drop(command); // it holds a copy of their end
        let name = self.args.first().map_or("", String::as_str);
        let status = wait(child).map_err(|e| io::Error::other(format!("Error waiting for daemon: '{name}' {e}")))?;
        match status.code() {
            Some(0) => {}
            Some(code) if NOT_STARTED.contains(&code) => {
                return Err(io::Error::other(format!("Error creating daemon: '{name}' cannot be started")));
            }
            _ => return Err(io::Error::other(format!("'{name}' failed ({status})"))),
        }
        let id = file.read()?;
        let pid = Pid::from_raw(id).ok_or_else(|| io::Error::other("passt left no process id"))?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok();
        *self.running.lock() = Some(Running { id, process });
        Ok(ours.into())
    }

    /// Ends it, if it runs. (Without the socket it ends by itself, if only later.)
    pub fn end(&self) {
        if let Some(process) = self.running.lock().take().and_then(|r| r.process) {
            _ = pidfd_send_signal(&process, Signal::TERM);
        }
    }
}

/// Waits for the process that has put itself into the background.
fn wait(mut child: Child) -> io::Result<ExitStatus> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if began.elapsed() >= PATIENCE {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!("is not in the background after {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file that only this user and who is told its name can get at; it goes with its handle.
///
/// Started by root, passt becomes another user before it opens the file, so that it must be open to all then. Nobody but the one who is told
/// where it is finds it: whoever wrote another number into it would choose which process is ended.
struct PidFile {
    folder: PathBuf,
    path: PathBuf,
}

impl PidFile {
    fn new() -> io::Result<Self> {
        let failed = |e: io::Error| io::Error::other(format!("Failed to create temporary file: {e}"));
        let [folder, name] = [(), ()].map(|()| RandomState::new().hash_one(std::process::id()));
        let folder = std::env::temp_dir().join(format!("passt-{folder:016x}"));
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        let file = Self { path: folder.join(format!("{name:016x}.pid")), folder };
        let created =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file.path).map_err(failed)?;
        if rustix::process::geteuid().is_root() {
            created.set_permissions(Permissions::from_mode(0o666)).map_err(failed)?;
            fs::set_permissions(&file.folder, Permissions::from_mode(0o711)).map_err(failed)?;
        }
        Ok(file)
    }

    /// The number in it.
    fn read(&self) -> io::Result<i32> {
        let text =
            fs::read_to_string(&self.path).map_err(|e| io::Error::other(format!("Cannot read passt pid: {e}")))?;
        let wrong = || io::Error::other(format!("File '{}' did not contain a valid PID.", self.path.display()));
        // (Of one only: 0 and what is negative mean groups of processes.)
        text.trim().parse().ok().filter(|id| *id > 0).ok_or_else(wrong)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.folder);
    }
}

fn open(nets: &Arc<Nets>, client: &Arc<Client>, opts: &mut Opts) -> Result<Arc<dyn End>> {
    let args = arguments(opts)?;
    // (What is left would be found after the program was started.)
    std::mem::replace(opts, opts.empty()).finish()?;
    with_program(nets, client, Program { args, running: Mutex::default() })
}

inventory::submit! { BackendDef { name: "passt", open } }

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<String, String> {
        let mut opts = crate::keyval(pairs.iter().copied()).unwrap();
        let args = arguments(&mut opts).map_err(|e| e.to_string())?;
        opts.finish().map_err(|e| e.to_string())?;
        Ok(args.join("|"))
    }

    #[test]
    fn options_become_arguments() {
        assert_eq!(of(&[]).unwrap(), "passt|--quiet");
        assert_eq!(of(&[("path", "/x/p"), ("quiet", "off"), ("freebind", "off"), ("tcp", "on")]).unwrap(), "/x/p");
        let pairs = [
            ("mtu", "9000"),
            ("mac", "02:00:00:00:00:01"),
            ("dhcp", "off"),
            ("freebind", "on"),
            ("ipv6", "off"),
            ("search", "a.example"),
            ("search", "b.example"),
            ("tcp-ports", "8080:80"),
            ("tcp-ports", "2222:22"),
            ("param", "--trace"),
        ];
        assert_eq!(
            of(&pairs).unwrap(),
            "passt|--quiet|--mtu|9000|--mac-addr|02:00:00:00:00:01|--no-dhcp|--freebind|--ipv4-only|\
             --search|a.example b.example|--tcp-ports|8080:80,2222:22|--trace"
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(of(&[("vhost-user", "on")]).unwrap_err().contains("vhost-user=on is not built yet"));
        assert_eq!(of(&[("vhost-user", "off")]).unwrap(), "passt|--quiet");
        assert_eq!(of(&[("speed", "1")]).unwrap_err(), "Parameter 'speed' is unexpected");
        let start = |path: &str| {
            let program = Program { args: vec![path.into()], running: Mutex::default() };
            program.start().unwrap_err().to_string()
        };
        assert_eq!(start("/nowhere/passt"), "Error creating daemon: '/nowhere/passt' cannot be started");
        assert!(start("/bin/false").starts_with("'/bin/false' failed (exit status: 1)"));
        assert!(start("/bin/true").ends_with("did not contain a valid PID."));
    }
}
