//! What belongs to the process and not to a machine: signals, `-daemonize`, the pid file, the terminal at a crash.
#![expect(unsafe_code, reason = "OS calls: fork and signal handlers")]

use crate::options::CommandLine;
use crate::vm::Vm;
use anyhow::{Context, Result, bail};
use hw_core::ShutdownCause;
use hw_core::event_loop::{Ready, Watch};
use rustix::fd::OwnedFd;
use rustix::pipe::PipeFlags;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Signals that end the machine in order.
const ENDING: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
/// Signals that end the process at once, by mistake of ours or wish of the user.
const FATAL: [i32; 8] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGQUIT,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// Puts the terminal back before the message of a panic is printed.
pub fn restore_terminal_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        chardev::terminal::restore();
        print(info);
    }));
}

/// Lets the process have as many descriptors as it may: a network's connections have one each, and the usual limit is made for
/// programs that use `select`.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // (Where that is not allowed things are as they were.)
        _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

extern "C" fn on_fatal(signal: libc::c_int) {
    // Only system calls: the terminal, then the default action.
    chardev::terminal::restore();
    // SAFETY: `signal` and `raise` are async-signal-safe; the arguments are a valid signal and the default action.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Signal handlers of the process.
pub struct Signals {
    ends: Vec<(i32, Arc<OwnedFd>)>,
    resumes: Arc<OwnedFd>,
    flag: Arc<AtomicBool>,
}

impl Signals {
    /// Installs them: ending signals write to pipes, fatal ones restore the terminal first.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        let mut ends = vec![];
        for signal in ENDING {
            ends.push((signal, piped(signal)?));
            signal_hook::flag::register(signal, flag.clone())?;
        }
        let resumes = piped(libc::SIGCONT)?;
        for signal in FATAL {
            // SAFETY: `on_fatal` is an `extern "C"` function that only makes async-signal-safe calls.
            unsafe { libc::signal(signal, on_fatal as *const () as libc::sighandler_t) };
        }
        Ok(Self { ends, resumes, flag })
    }

    /// Tells whether an ending signal has come.
    pub fn flag(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let flag = self.flag.clone();
        move || flag.load(Ordering::SeqCst)
    }

    /// From now on the ending signals end `vm`; one that came already does at once.
    #[must_use = "dropping the watches stops it"]
    pub fn watch(&self, vm: &Arc<Vm>) -> Vec<Watch> {
        let end = |(signal, fd): &(i32, Arc<OwnedFd>)| {
            let (weak, signal, pipe) = (Arc::downgrade(vm), *signal, fd.clone());
            vm.events.watch(fd.clone(), Ready::READ, move |_| {
                let _ = rustix::io::read(&*pipe, &mut [0u8; 64]);
                if let Some(vm) = weak.upgrade() {
                    vm.say(&format!("terminating on signal {signal}"));
                    vm.quit(ShutdownCause::HostSignal);
                }
            })
        };
        let pipe = self.resumes.clone();
        let resume = vm.events.watch(self.resumes.clone(), Ready::READ, move |_| {
            let _ = rustix::io::read(&*pipe, &mut [0u8; 64]);
            chardev::terminal::resume();
        });
        self.ends.iter().map(end).chain([resume]).collect()
    }
}

/// A pipe that gets a byte for each `signal`.
fn piped(signal: i32) -> Result<Arc<OwnedFd>> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    signal_hook::low_level::pipe::register(signal, writer)?;
    Ok(Arc::new(reader))
}

/// `-daemonize` and `-pidfile`.
pub struct Daemon {
    /// The end of the pipe on which the parent waits.
    tell: Option<OwnedFd>,
    pidfile: Option<PathBuf>,
}

/// The pid file; removed when the process ends in order.
pub struct PidFile(Option<PathBuf>);

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// `-run-with exit-with-parent=on`, `-name process=…`: what is set once, early.
///
/// # Errors
/// When the host refuses.
pub fn apply_settings(line: &CommandLine) -> Result<()> {
    if line.run_with.switch("exit-with-parent")? == Some(true) {
        let signal = Some(rustix::process::Signal::TERM);
        rustix::process::set_parent_process_death_signal(signal).context("-run-with exit-with-parent=on")?;
    }
    if let Some(name) = line.name.get("process") {
        let name = std::ffi::CString::new(name).context("-name process")?;
        rustix::thread::set_name(&name).context("-name process")?;
    }
    Ok(())
}

/// `-run-with chroot=DIR`, once everything that needs the whole file system is open.
///
/// # Errors
/// The folder is not there, or this user may not.
fn enter_chroot(line: &CommandLine) -> Result<()> {
    let Some(dir) = line.run_with.get("chroot") else { return Ok(()) };
    rustix::process::chroot(dir).with_context(|| format!("-run-with chroot={dir}: chroot failed"))?;
    std::env::set_current_dir("/").context("not able to chdir to /")
}

impl Daemon {
    /// With `-daemonize`: forks. The parent waits until the machine is ready and exits 0, or 1 if it never is; only the child
    /// returns. Call it before the process has a second thread.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn start(line: &CommandLine) -> Result<Self> {
        let pidfile = line.pidfile.clone().map(|p| std::path::absolute(&p).unwrap_or(p));
        if !line.daemonize {
            return Ok(Self { tell: None, pidfile });
        }
        let (wait, tell) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: the process has one thread (this runs first in `main`), so the child may go on as usual.
        match unsafe { libc::fork() } {
            -1 => bail!("cannot fork: {}", std::io::Error::last_os_error()),
            0 => {
                drop(wait);
                rustix::process::setsid().context("cannot start a session")?;
                Ok(Self { tell: Some(tell), pidfile })
            }
            _ => {
                drop(tell);
                let mut status = [1u8];
                let read = rustix::io::retry_on_intr(|| rustix::io::read(&wait, &mut status));
                let [status] = if read == Ok(1) { status } else { [1] };
                std::process::exit(status.into());
            }
        }
    }

    /// The machine is built: writes the pid file, leaves the terminal, lets the parent go.
    ///
    /// # Errors
    /// The pid file cannot be written.
    pub fn ready(self, vm: &Vm) -> Result<PidFile> {
        if let Some(path) = &self.pidfile {
            let text = format!("{}\n", std::process::id());
            let written = File::create(path).and_then(|mut f| f.write_all(text.as_bytes()));
            written.with_context(|| format!("cannot create PID file {}", path.display()))?;
        }
        let pidfile = PidFile(self.pidfile);
        enter_chroot(&vm.options)?;
        if let Some(tell) = self.tell {
            std::env::set_current_dir("/").context("not able to chdir to /")?;
            let null = File::options().read(true).write(true).open("/dev/null").context("cannot open /dev/null")?;
            rustix::stdio::dup2_stdin(&null)?;
            rustix::stdio::dup2_stdout(&null)?;
            // Whoever waits for the end of standard error must not wait for the daemon; a log that goes there stays.
            if vm.options.log_items.is_empty() || vm.options.log_file.is_some() {
                rustix::stdio::dup2_stderr(&null)?;
            }
            rustix::io::write(&tell, &[0])?;
        }
        Ok(pidfile)
    }
}
