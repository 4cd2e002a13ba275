//! `-help` and `-version`, from the table.

use super::table::OPTIONS;
use super::version_line;
use std::fmt::Write;

/// Text of `-version`.
pub fn version() -> String {
    format!("{}\nQomet comes under the MIT or the Apache-2.0 licence, at your choice.\n", version_line())
}

/// Text of `-help`. `program`: name to show in the usage line.
pub fn help(program: &str) -> String {
    let mut out = format!("{}\nusage: {program} [options]\n", version());
    for (title, group) in OPTIONS.iter() {
        let _ = writeln!(out, "\n{title}:");
        for o in group {
            let head = if o.arg.is_empty() { format!("-{}", o.name) } else { format!("-{} {}", o.name, o.arg) };
            let mut lines = o.help.lines();
            if head.len() < 16 {
                let _ = writeln!(out, "{head:<16}{}", lines.next().unwrap_or_default());
            } else {
                let _ = writeln!(out, "{head}");
            }
            for l in lines {
                let _ = writeln!(out, "                {l}");
            }
        }
    }
    out.push_str("\nDuring emulation on a terminal, 'ctrl-a h' shows the keys of the multiplexer.\n");
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_line_is_what_clients_look_for() {
        assert!(super::version().starts_with("QEMU emulator version 11.1.3 (Qomet "));
        let help = super::help("qomet");
        assert!(help.contains("\n-nographic      disable") && help.contains("\n-machine [type=]name"));
    }
}
