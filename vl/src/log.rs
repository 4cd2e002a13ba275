//! `-d`, `-D` and HMP's `log` and `logfile`: log items, each a `tracing` target of its name. Where the text goes and which items are
//! wanted belongs to the process, which hands a [`Log`] to its machine.

use parking_lot::Mutex;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// QEMU's items that exist here: name and what is logged. The name is the `tracing` target.
pub const ITEMS: &[(&str, &str)] = &[
    ("out_asm", "show generated host assembly code for each compiled region"),
    ("in_asm", "show target assembly code as it is decoded"),
    ("op", "show the intermediate code (CLIF) of each compiled region"),
    ("int", "show interrupts/exceptions in short format"),
    ("exec", "show trace before each executed block (lots of logs; nothing compiled runs meanwhile)"),
    ("cpu", "show CPU registers before entering a block (lots of logs; nothing compiled runs meanwhile)"),
    ("fpu", "include FPU registers in the 'cpu' logging"),
    ("mmu", "log control registers and the A20 gate"),
    ("cpu_reset", "show CPU state before CPU resets"),
    ("unimp", "log what the guest asks for that is not modelled"),
    ("guest_errors", "log when the guest OS does something invalid (eg accessing a non-existent register)"),
    ("nochain", "\"exec\" and \"cpu\" show complete traces (they always do)"),
];

/// Items whose text is QEMU's own layout: nothing is added to it.
const PLAIN: &[&str] = &["out_asm", "in_asm", "op", "int", "exec", "cpu", "mmu", "cpu_reset"];

/// QEMU's items that do not exist here, and why: named so that the message can tell.
const NOT_HERE: &[(&str, &str)] = &[
    ("op_opt", NOT_BUILT),
    ("op_ind", NOT_BUILT),
    ("op_plugin", NOT_BUILT),
    ("pcall", NOT_BUILT),
    ("plugin", NOT_BUILT),
    ("tid", NOT_BUILT),
    ("invalid_mem", NOT_BUILT),
    ("vpu", "is about CPUs with a vector unit apart"),
    ("page", "is about programs run without a machine"),
    ("strace", "is about programs run without a machine"),
];
const NOT_BUILT: &str = "is not built yet";

/// Text of `-d help`.
pub fn help() -> String {
    let mut out = String::from("Log items (comma separated):\n");
    for (name, what) in ITEMS {
        let _ = writeln!(out, "{name:<15} {what}");
    }
    let _ = writeln!(out, "{:<15} all of them", "all");
    let _ = writeln!(out, "{:<15} messages of the modules that PATTERN fits, such as hw::timer*", "trace:PATTERN");
    out
}

/// The filter for the items of `-d` and the patterns of `-trace`.
///
/// # Errors
/// An item there is not.
pub fn filter(items: &[String], traces: &[String]) -> Result<String, String> {
    let mut targets = vec!["warn".to_owned()];
    for item in items {
        match item.as_str() {
            "all" => targets.extend(ITEMS.iter().map(|(n, _)| format!("{n}=trace"))),
            "none" => targets.truncate(1),
            _ if ITEMS.iter().any(|(n, _)| n == item) => targets.push(format!("{item}=trace")),
            _ => match item.strip_prefix("trace:") {
                Some(pattern) => targets.push(target(pattern)),
                None => {
                    if let Some((_, why)) = NOT_HERE.iter().find(|(n, _)| n == item) {
                        return Err(format!("log item '{item}' of QEMU {why}; '-d help' lists those that are here"));
                    }
                    let hint = crate::nearest::did_you_mean(item, ITEMS.iter().map(|(n, _)| *n));
                    return Err(format!("Unknown log item '{item}'{hint}; '-d help' lists them"));
                }
            },
        }
    }
    // (A directive is for all targets that begin with it: `cpu` is not to bring `cpu_reset` along.)
    let chosen = |name: &str| targets.contains(&format!("{name}=trace"));
    let longer = |name: &str| ITEMS.iter().any(|(n, _)| *n != name && name.starts_with(n) && chosen(n));
    let others = ITEMS.iter().map(|(n, _)| *n).filter(|n| !chosen(n) && longer(n));
    let others: Vec<String> = others.map(|n| format!("{n}=warn")).collect();
    targets.extend(others);
    targets.extend(traces.iter().map(|p| target(p)));
    Ok(targets.join(","))
}

/// A trace pattern (`hw::timer*`) as a filter directive: targets match by prefix.
fn target(pattern: &str) -> String {
    format!("{}=trace", pattern.trim_end_matches('*'))
}

/// `-dfilter`: ranges of addresses, `first..last`, `start+length` or `end-length`, separated by commas.
///
/// # Errors
/// QEMU's words for what is wrong.
pub fn ranges(text: &str) -> Result<Vec<RangeInclusive<u64>>, String> {
    text.split(',').map(range).collect()
}

fn range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let find = |op: &str| text.find(op).map(|at| (at, at + op.len()));
    let (at, after) = find("-").or_else(|| find("+")).or_else(|| find("..")).ok_or("Bad range specifier")?;
    let (left, op, right) = (&text[..at], &text[at..after], &text[after..]);
    use crate::options::size::number;
    let first = number(left).ok_or_else(|| format!("Invalid number to the left of {op}"))?;
    let second = number(right).ok_or_else(|| format!("Invalid number to the right of {op}"))?;
    let (low, high) = match op {
        "+" => (first, first.wrapping_add(second).wrapping_sub(1)),
        "-" => (first.wrapping_sub(second.wrapping_sub(1)), first),
        _ => (first, second),
    };
    if low > high { Err("Invalid range".into()) } else { Ok(low..=high) }
}

/// Where log text goes, shared by all writers.
#[derive(Clone)]
struct Output(Arc<Mutex<Box<dyn Write + Send>>>);

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.lock().flush()
    }
}

/// The process's log: what is wanted and where it goes can change while machines run.
#[derive(Clone)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    output: Output,
    traces: Vec<String>,
}

impl Log {
    /// Replaces the items that are wanted (HMP `log`); the patterns of `-trace` stay.
    ///
    /// # Errors
    /// An unknown item.
    pub fn set_items(&self, items: &[String]) -> Result<(), String> {
        let filter = EnvFilter::try_new(filter(items, &self.traces)?).map_err(|e| e.to_string())?;
        self.filter.reload(filter).map_err(|e| e.to_string())
    }

    /// Sends further text to a file (HMP `logfile`).
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn set_file(&self, path: &str) -> Result<(), String> {
        let file = open(path)?;
        *self.output.0.lock() = file;
        Ok(())
    }
}

/// A log file; `%d` in its name is the process's number.
fn open(path: &str) -> Result<Box<dyn Write + Send>, String> {
    let path = path.replace("%d", &std::process::id().to_string());
    let file = File::create(&path).map_err(|e| format!("error opening logfile {path}: {e}"))?;
    Ok(Box::new(file))
}

/// Text of [`PLAIN`] items as it is; other messages with their target.
struct Layout(Format<Full, ()>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, DefaultFields> for Layout {
    fn format_event(&self, ctx: &FmtContext<'_, S, DefaultFields>, mut w: Writer<'_>, event: &Event<'_>) -> fmt::Result
    where
        DefaultFields: for<'a> FormatFields<'a>,
    {
        if !PLAIN.contains(&event.metadata().target()) {
            return self.0.format_event(ctx, w, event);
        }
        let mut text = Message(String::new());
        event.record(&mut text);
        w.write_str(&text.0)?;
        if text.0.ends_with('\n') { Ok(()) } else { w.write_char('\n') }
    }
}

/// An event's message.
struct Message(String);
impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

/// Starts logging for the whole process: `file` or standard error. The first call stays.
///
/// # Errors
/// An unknown item, or a file that cannot be made.
pub fn start(items: &[String], traces: &[String], file: Option<&Path>) -> Result<Log, String> {
    let filter = EnvFilter::try_new(filter(items, traces)?).map_err(|e| e.to_string())?;
    let to: Box<dyn Write + Send> = match file {
        Some(path) => open(&path.to_string_lossy())?,
        None => Box::new(std::io::stderr()),
    };
    let output = Output(Arc::new(Mutex::new(to)));
    let (filter, handle) = reload::Layer::new(filter);
    let writer = output.clone();
    let text = tracing_subscriber::fmt::layer()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .event_format(Layout(tracing_subscriber::fmt::format().without_time().with_level(false).with_ansi(false)));
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let _ = tracing_subscriber::registry().with(filter).with(text).try_init();
    Ok(Log { filter: handle, output, traces: traces.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_become_targets() {
        let s = |t: &[&str]| t.iter().map(|t| t.to_string()).collect::<Vec<_>>();
        assert_eq!(
            filter(&s(&["guest_errors", "trace:pit_*"]), &s(&["memory*"])),
            Ok("warn,guest_errors=trace,pit_=trace,memory=trace".into())
        );
        assert_eq!(filter(&s(&["int", "none", "exec"]), &[]), Ok("warn,exec=trace".into()));
        assert_eq!(filter(&s(&["cpu"]), &[]), Ok("warn,cpu=trace,cpu_reset=warn".into()));
        assert!(filter(&s(&["int", "pcall"]), &[]).unwrap_err().contains("'pcall' of QEMU is not built yet"));
        assert!(filter(&s(&["strace"]), &[]).unwrap_err().contains("'strace' of QEMU is about programs"));
        assert!(filter(&s(&["guest_error"]), &[]).unwrap_err().contains("did you mean 'guest_errors'"));
    }

    #[test]
    fn ranges_are_written_in_three_ways() {
        assert_eq!(
            ranges("0x8000..0x8fff,0xffffffc000080000+0x200,0x60000-0x1000"),
            Ok(vec![0x8000..=0x8fff, 0xffff_ffc0_0008_0000..=0xffff_ffc0_0008_01ff, 0x5f001..=0x60000])
        );
        for (text, error) in [
            ("", "Bad range specifier"),
            ("0x1000", "Bad range specifier"),
            ("x..0x1", "Invalid number to the left of .."),
            ("0x1+y", "Invalid number to the right of +"),
            ("0x2..0x1", "Invalid range"),
        ] {
            assert_eq!(ranges(text), Err(error.to_owned()), "{text}");
        }
    }
}
