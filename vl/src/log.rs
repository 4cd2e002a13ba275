//! `-d` and `-D`: log items, each a `tracing` target of its name.

use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use tracing_subscriber::EnvFilter;

/// QEMU's items that exist here: name and what is logged. The name is the `tracing` target.
pub const ITEMS: &[(&str, &str)] = &[
    ("int", "interrupts and exceptions, one line each"),
    ("cpu_reset", "a CPU's state before it is reset"),
    ("unimp", "what the guest asks for that is not modelled"),
    ("guest_errors", "when the guest OS does something invalid (e.g. accessing a non-existent register)"),
];

/// QEMU's items that do not exist here: named so that the message can tell.
const NOT_BUILT: &[&str] = &[
    "out_asm",
    "in_asm",
    "op",
    "op_opt",
    "op_ind",
    "op_plugin",
    "exec",
    "cpu",
    "fpu",
    "mmu",
    "pcall",
    "page",
    "plugin",
    "strace",
    "tid",
    "vpu",
    "invalid_mem",
];

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
            "none" | "nochain" => {}
            _ if ITEMS.iter().any(|(n, _)| n == item) => targets.push(format!("{item}=trace")),
            _ => match item.strip_prefix("trace:") {
                Some(pattern) => targets.push(target(pattern)),
                None if NOT_BUILT.contains(&item.as_str()) => {
                    return Err(format!("log item '{item}' of QEMU is not built yet; '-d help' lists those that are"));
                }
                None => {
                    let hint = crate::nearest::did_you_mean(item, ITEMS.iter().map(|(n, _)| *n));
                    return Err(format!("Unknown log item '{item}'{hint}; '-d help' lists them"));
                }
            },
        }
    }
    targets.extend(traces.iter().map(|p| target(p)));
    Ok(targets.join(","))
}

/// A trace pattern (`hw::timer*`) as a filter directive: targets match by prefix.
fn target(pattern: &str) -> String {
    format!("{}=trace", pattern.trim_end_matches('*'))
}

/// Starts logging for the whole process: `file` or standard error. The first call stays.
///
/// # Errors
/// An unknown item, or a file that cannot be made.
pub fn start(items: &[String], traces: &[String], file: Option<&Path>) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter(items, traces)?).map_err(|e| e.to_string())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).without_time().with_level(false);
    match file {
        Some(path) => {
            let path = path.to_string_lossy().replace("%d", &std::process::id().to_string());
            let file = File::create(&path).map_err(|e| format!("error opening logfile {path}: {e}"))?;
            let _ = builder.with_writer(std::sync::Mutex::new(file)).try_init();
        }
        None => drop(builder.with_writer(std::io::stderr).try_init()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn items_become_targets() {
        let s = |t: &[&str]| t.iter().map(|t| t.to_string()).collect::<Vec<_>>();
        assert_eq!(
            filter(&s(&["guest_errors", "trace:pit_*"]), &s(&["memory*"])),
            Ok("warn,guest_errors=trace,pit_=trace,memory=trace".into())
        );
        assert!(filter(&s(&["int", "in_asm"]), &[]).unwrap_err().contains("'in_asm' of QEMU is not built yet"));
        assert!(filter(&s(&["guest_error"]), &[]).unwrap_err().contains("did you mean 'guest_errors'"));
    }
}
