//! Walks the arguments by the table.

use super::command_line::{CommandLine, Located};
use super::table::{NOT_BUILT, OPTIONS, OptionDef};
use crate::nearest::nearest;

/// What the arguments ask for.
#[derive(Debug, PartialEq)]
pub enum Parsed {
    /// Run a machine.
    Run(Box<CommandLine>),
    /// Print the help text.
    Help,
    /// Print the version.
    Version,
}

/// A wrong argument; one line that follows the program's name.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct CommandLineError(pub String);

fn find(name: &str) -> Option<&'static OptionDef> {
    OPTIONS.iter().flat_map(|(_, group)| group).find(|o| o.name == name)
}

/// Parses the arguments that follow the program's name. `-help` and `-version` win over whatever comes after them.
///
/// # Errors
/// The first wrong argument.
pub fn parse(args: &[String]) -> Result<Parsed, CommandLineError> {
    let mut line = Box::<CommandLine>::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).filter(|n| !n.is_empty()) else {
            // A name alone is the first disk.
            line.drives
                .push(Located { at: arg.clone(), value: super::drive::from_short(arg, &super::drive::DISKS[0]) });
            continue;
        };
        let Some(option) = find(name) else { return Err(unknown(name, arg)) };
        match option.name {
            "h" | "help" => return Ok(Parsed::Help),
            "version" => return Ok(Parsed::Version),
            _ => {}
        }
        let (at, text) = if option.arg.is_empty() {
            (format!("-{name}"), "")
        } else {
            let Some(text) = args.next() else {
                return Err(CommandLineError(format!("{arg}: requires an argument")));
            };
            (format!("-{name} {text}"), text.as_str())
        };
        (option.apply)(&mut line, &at, text).map_err(|e| CommandLineError(format!("{at}: {e}")))?;
    }
    Ok(Parsed::Run(line))
}

fn unknown(name: &str, arg: &str) -> CommandLineError {
    if NOT_BUILT.iter().any(|(n, _)| *n == name) {
        return CommandLineError(format!("{arg}: this option of QEMU is not built yet"));
    }
    let near = nearest(name, OPTIONS.iter().flat_map(|(_, group)| group).map(|o| o.name));
    let near: Vec<String> = near.iter().map(|n| format!("-{n}")).collect();
    let hint = if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(", ")) };
    CommandLineError(format!("{arg}: invalid option{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{FwCfgArg, MonitorMode, PropInput};
    use serde_json::json;

    fn run(words: &[&str]) -> Result<CommandLine, String> {
        match parse(&words.iter().map(|w| w.to_string()).collect::<Vec<_>>()) {
            Ok(Parsed::Run(c)) => Ok(*c),
            Ok(other) => Err(format!("{other:?}")),
            Err(e) => Err(e.to_string()),
        }
    }
    fn error(words: &[&str]) -> String {
        run(words).unwrap_err()
    }

    #[test]
    fn one_dash_or_two() {
        let c = run(&["--machine", "pc,accel=tcg", "-M", "usb=off", "--nographic"]).unwrap();
        assert_eq!(
            (c.machine.get("type"), c.machine.get("accel"), c.machine.get("usb")),
            (Some("pc"), Some("tcg"), Some("off"))
        );
        assert!(c.nographic);
    }

    #[test]
    fn help_and_version_stop_the_walk() {
        let words = |w: &[&str]| w.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        assert_eq!(parse(&words(&["-version", "-nonsense"])), Ok(Parsed::Version));
        assert_eq!(parse(&words(&["-h"])), Ok(Parsed::Help));
        assert_eq!(error(&["-nonsense", "-version"]), "-nonsense: invalid option");
    }

    #[test]
    fn wrong_options_are_one_line_with_the_nearest() {
        assert_eq!(error(&["-mahcine", "pc"]), "-mahcine: invalid option (did you mean -machine?)");
        assert_eq!(error(&["-m"]), "-m: requires an argument");
        assert_eq!(error(&["-mtdblock", "x"]), "-mtdblock: this option of QEMU is not built yet");
        assert!(error(&["-m", "12q"]).starts_with("-m 12q: Parameter 'size' expects a non-negative number"));
        assert_eq!(error(&["-boot", "order=cc"]), "-boot order=cc: Boot device 'c' was given twice");
        assert_eq!(error(&["-boot", "ordre=c"]), "-boot ordre=c: Invalid parameter 'ordre' (did you mean 'order'?)");
        assert!(error(&["-icount", "shift=0,rr=record"]).ends_with("parameter 'rr' of QEMU is not built yet"));
    }

    #[test]
    fn devices_and_objects_as_list_and_as_json() {
        let c = run(&[
            "-device",
            "edu,id=e,dma_mask=0xff",
            "-device",
            "{'driver':'edu','id':'f','dma_mask':255}",
            "-device",
            "help",
        ])
        .unwrap();
        let d = |i: usize| &c.devices[i].value;
        assert_eq!((d(0).type_name.as_str(), d(0).id.as_deref()), ("edu", Some("e")));
        assert_eq!(d(0).props, [("dma_mask".into(), PropInput::Text("0xff".into()))]);
        assert_eq!(d(1).props, [("dma_mask".into(), PropInput::Json(json!(255)))]);
        assert!(d(2).help && d(2).type_name.is_empty());
        assert_eq!(error(&["-device", "id=x"]), "-device id=x: Parameter 'driver' is missing");
        assert_eq!(error(&["-object", "rng-random"]), "-object rng-random: Parameter 'id' is missing");
        assert!(error(&["-device", "{'driver':"]).starts_with("-device {'driver':: JSON parse error"));
    }

    #[test]
    fn globals_in_both_forms() {
        let c =
            run(&["-global", "edu.dma_mask=1=2", "-global", "driver=cfi.pflash01,property=secure,value=on"]).unwrap();
        assert_eq!(c.globals[0].value, ("edu".into(), "dma_mask".into(), "1=2".into()));
        assert_eq!(c.globals[1].value.0, "cfi.pflash01");
        assert!(error(&["-global", "driver=x"]).ends_with("are required"));
    }

    #[test]
    fn monitors() {
        let c = run(&["-qmp", "stdio", "-mon", "chardev=m,mode=control,pretty=on"]).unwrap();
        assert_eq!(c.monitors.len(), 2);
        assert_eq!(
            (c.monitors[1].value.mode, c.monitors[1].value.pretty, c.monitors[1].value.by_id),
            (MonitorMode::Control, true, true)
        );
        assert!(run(&["-qmp", "stdio"]).unwrap().monitor_given);
        assert!(!run(&[]).unwrap().monitor_given);
        let none = run(&["-monitor", "none"]).unwrap();
        assert!(none.monitor_given && none.monitors.is_empty());
        assert!(error(&["-mon", "m,mode=x"]).contains("does not accept value 'x' (expected readline, control)"));
    }

    #[test]
    fn values_are_checked() {
        let c =
            run(&["-uuid", "550E8400-e29b-41d4-a716-446655440000", "-fw_cfg", "opt/x,string=a,,b", "-echr", "0x14"])
                .unwrap();
        assert_eq!(c.uuid.as_deref(), Some("550e8400-e29b-41d4-a716-446655440000"));
        assert_eq!(c.fw_cfg[0].value, FwCfgArg::Text { name: "opt/x".into(), text: "a,b".into() });
        assert_eq!(c.escape_char, Some(0x14));
        for bad in [["-uuid", "x"], ["-fw_cfg", "opt/x"], ["-display", "gtk"], ["-vga", "cga"], ["-action", "reboot=x"]]
        {
            assert!(run(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_option_is_named_twice() {
        let mut names: Vec<&str> = OPTIONS.iter().flat_map(|(_, g)| g).map(|o| o.name).collect();
        names.extend(NOT_BUILT.iter().map(|(n, _)| *n));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
