//! The program around a machine: arguments, terminal, signals, `-daemonize`, exit status. `qomet` is nothing but a call of
//! [`main`], and so is a binary with devices of its own linked in.

use crate::options::{CommandLine, Parsed};
use crate::process::{Daemon, Signals, apply_settings, raise_descriptor_limit, restore_terminal_on_panic};
use crate::{Env, Reporter, Started, Vm, log, options};
use anyhow::Context;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the machine that the process's arguments ask for; the status to end with.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
    let program = args.next().unwrap_or_default();
    let program = program.rsplit('/').next().filter(|p| !p.is_empty()).unwrap_or("qomet").to_owned();
    let args: Vec<String> = args.collect();
    restore_terminal_on_panic();
    let mut report = Reporter::stderr(&program);
    let result = match options::parse(&args) {
        Ok(Parsed::Run(line)) => {
            report = report.for_line(&line);
            run(*line, &program)
        }
        Ok(Parsed::Help) => Ok(print(&options::help::help(&program))),
        Ok(Parsed::Version) => Ok(print(&options::help::version())),
        Err(e) => Err(e.into()),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(e) => {
            chardev::terminal::restore();
            report.say(&format!("{e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a text and says that all went well. (A reader that left early, as in `| head`, is not our error.)
fn print(text: &str) -> u8 {
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}

/// What `-d`, `-D` and `-trace` ask for.
fn start_log(line: &CommandLine) -> anyhow::Result<log::Log> {
    let mut traces: Vec<String> = line.trace.iter().filter_map(|t| t.text("enable")).collect();
    for path in line.trace.iter().filter_map(|t| t.get("events")) {
        let text = std::fs::read_to_string(path).with_context(|| format!("-trace events={path}"))?;
        traces.extend(text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned));
    }
    let trace_file = line.trace.iter().find_map(|t| t.get("file")).map(PathBuf::from);
    let file = line.log_file.clone().or(trace_file);
    let items: Vec<String> = line.log_items.iter().filter(|i| *i != "help").cloned().collect();
    log::start(&items, &traces, file.as_deref()).map_err(anyhow::Error::msg)
}

fn run(line: CommandLine, program: &str) -> anyhow::Result<u8> {
    // Forking comes before anything that could start a thread.
    let daemon = Daemon::start(&line)?;
    apply_settings(&line)?;
    raise_descriptor_limit();
    let log = start_log(&line)?;
    let signals = Signals::install()?;
    let interrupted = signals.flag();
    let env = Env {
        program: program.into(),
        report: Reporter::stderr(program),
        interrupted: Box::new(interrupted),
        log: Some(log),
    };
    let vm = match Vm::from_options(line, env)? {
        Started::Vm(vm) => vm,
        Started::Text(text) => return Ok(print(&text)),
    };
    let _pidfile = daemon.ready(&vm)?;
    let _watches = signals.watch(&vm);
    let status = vm.run();
    drop(vm);
    chardev::terminal::restore();
    Ok(u8::try_from(status).unwrap_or(1))
}
