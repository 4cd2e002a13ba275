//! From `-chardev` lists and the short forms of `-serial`, `-monitor`, `-qmp` and friends to a [`chardev::Config`].

use super::desc;
use super::opts::{OptError, Opts};
use crate::nearest::did_you_mean;
use chardev::Config;
use chardev::config::{Address, Backend, Family, Socket};

/// The kinds `-chardev help` lists.
pub const BACKENDS: &[&str] = &["file", "memory", "mux", "null", "pipe", "pty", "ringbuf", "socket", "stdio", "vc"];

/// Keys for the size of a text console.
const SIZES: [&str; 4] = ["width", "height", "cols", "rows"];

fn other(text: impl Into<String>) -> OptError {
    OptError::Other(text.into())
}

/// The device a `-chardev` list describes.
///
/// # Errors
/// What is missing, unknown or does not go together.
pub fn from_opts(o: &Opts) -> Result<Config, OptError> {
    let id = o.id.clone().ok_or_else(|| other("chardev: no id specified"))?;
    let kind = o.get("backend").ok_or_else(|| other(format!("chardev: \"{id}\" missing backend")))?;
    let path = |what: &str| o.text("path").ok_or_else(|| other(format!("chardev: {what}: no filename given")));
    let backend = match kind {
        "null" => Backend::Null,
        "vc" => Backend::Vc { fixed: SIZES.iter().any(|k| o.get(k).is_some()) },
        _ if SIZES.iter().any(|k| o.get(k).is_some()) && BACKENDS.contains(&kind) => {
            return Err(other(format!("chardev '{id}' does not support size options")));
        }
        "stdio" => Backend::Stdio { signal: o.switch("signal")?.unwrap_or(true) },
        "file" => Backend::File {
            path: path("file")?.into(),
            input: o.text("input-path").map(Into::into),
            append: o.switch("append")?.unwrap_or(false),
        },
        "pipe" => Backend::Pipe { path: path("pipe")?.into() },
        "pty" => Backend::Pty { path: o.text("path").map(Into::into) },
        "ringbuf" | "memory" => Backend::Ringbuf { size: o.size("size", 1)?.filter(|s| *s > 0).unwrap_or(65536) },
        "mux" => Backend::Mux { chardev: o.text("chardev").ok_or_else(|| other("chardev: mux: no chardev given"))? },
        "socket" => Backend::Socket(socket(o)?),
        _ => {
            let hint = did_you_mean(kind, BACKENDS.iter().copied());
            return Err(other(format!("'{kind}' is not a valid char driver name{hint}")));
        }
    };
    Ok(Config {
        mux: o.switch("mux")?.unwrap_or(false),
        logfile: o.text("logfile").map(Into::into),
        logappend: o.switch("logappend")?.unwrap_or(false),
        ..Config::new(id, backend)
    })
}

fn socket(o: &Opts) -> Result<Socket, OptError> {
    let server = o.switch("server")?.unwrap_or(false);
    let wait = o.switch("wait")?;
    if wait.is_some() && !server {
        return Err(other("'wait' option is incompatible with socket in client connect mode"));
    }
    let nodelay = match (o.switch("nodelay")?, o.switch("delay")?) {
        (Some(_), Some(_)) => return Err(other("'delay' and 'nodelay' are mutually exclusive")),
        (nodelay, delay) => nodelay.or(delay.map(|d| !d)),
    };
    let reconnect_ms = o.number("reconnect-ms")?.unwrap_or(0);
    if reconnect_ms > 0 && server {
        return Err(other("'reconnect-ms' option is incompatible with socket in server listen mode"));
    }
    let address = match (o.text("path"), o.text("fd"), o.text("host"), o.text("port")) {
        (Some(path), None, None, _) => Address::Unix { path, is_abstract: o.switch("abstract")?.unwrap_or(false) },
        (None, Some(fd), None, _) => {
            Address::Fd(fd.parse().map_err(|_| other(format!("chardev: socket: fd '{fd}' is not a number")))?)
        }
        (None, None, host, Some(port)) => {
            let to =
                o.number("to")?.map(|t| u16::try_from(t).map_err(|_| OptError::Number("to".into()))).transpose()?;
            let family = match (o.switch("ipv4")?, o.switch("ipv6")?) {
                (Some(true), None | Some(false)) | (None, Some(false)) => Family::V4,
                (None | Some(false), Some(true)) | (Some(false), None) => Family::V6,
                (Some(false), Some(false)) => {
                    return Err(other("chardev: socket: ipv4=off and ipv6=off leave nothing"));
                }
                _ => Family::Any,
            };
            Address::Inet { host: host.unwrap_or_default(), port, to, family }
        }
        (None, None, Some(_), None) => return Err(other("chardev: socket: no port given")),
        (None, None, None, None) => return Err(other("chardev: socket: no path, host or fd given")),
        _ => return Err(other("chardev: socket: only one of path, fd and host can be given")),
    };
    Ok(Socket {
        address,
        server,
        wait: server && wait.unwrap_or(true),
        nodelay: nodelay.unwrap_or(false),
        telnet: o.switch("telnet")?.unwrap_or(false),
        reconnect_ms,
    })
}

/// What a short form stands for.
#[derive(Debug, PartialEq)]
pub enum Short {
    /// `none`: no device.
    None,
    /// `chardev:ID`: one that `-chardev` made.
    Existing(String),
    /// A new one. `monitor`: `mon:`, a human monitor sits on the same multiplexer.
    New {
        /// The device.
        config: Config,
        /// Put a monitor on it.
        monitor: bool,
    },
}

/// Understands `text` and calls the device `id`.
///
/// # Errors
/// When it is no short form.
pub fn from_short(id: &str, text: &str) -> Result<Short, OptError> {
    if text == "none" {
        return Ok(Short::None);
    }
    if let Some(existing) = text.strip_prefix("chardev:") {
        return Ok(Short::Existing(existing.into()));
    }
    let (rest, monitor) = match text.strip_prefix("mon:") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let mut o = compat(rest)?;
    o.id = Some(id.into());
    if monitor {
        o.pairs.push(("mux".into(), "on".into()));
        if rest == "stdio" {
            // ^C goes to the guest: the multiplexer has its own key to end the emulator.
            o.pairs.push(("signal".into(), "off".into()));
        }
    }
    Ok(Short::New { config: from_opts(&o)?, monitor })
}

/// `80Cx24C` (characters) or `640x480` (pixels) as keys.
fn screen_size(text: &str) -> Option<String> {
    let side = |text: &str, pixels: &str, characters: &str| {
        let (number, key) = text.strip_suffix('C').map_or((text, pixels), |n| (n, characters));
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| format!("{key}={number}"))
    };
    let (x, y) = text.split_once('x')?;
    Some(format!("{},{}", side(x, "width", "cols")?, side(y, "height", "rows")?))
}

fn compat(text: &str) -> Result<Opts, OptError> {
    let list = |backend: &str, rest: &str| -> Result<Opts, OptError> {
        let sep = if rest.is_empty() { "" } else { "," };
        Opts::parse(&format!("{backend}{sep}{rest}"), &desc::CHARDEV)
    };
    if let Some(rest) = text.strip_prefix("vc") {
        if rest.is_empty() {
            return list("vc", "");
        }
        if let Some(size) = rest.strip_prefix(':').and_then(screen_size) {
            return list("vc", &size);
        }
    }
    match text {
        "null" | "pty" | "stdio" | "ringbuf" => return list(text, ""),
        _ => {}
    }
    let Some((kind, rest)) = text.split_once(':') else {
        let hint = did_you_mean(text, ["null", "none", "pty", "stdio", "vc", "ringbuf"]);
        return Err(other(format!("'{text}' is not a valid char driver{hint}")));
    };
    match kind {
        // The whole rest is the path, commas included.
        "file" | "pipe" => list(kind, &format!("path={}", rest.replace(',', ",,"))),
        "unix" => list("socket", &format!("path={rest}")),
        "tcp" | "telnet" => {
            let (address, tail) = rest.split_once(',').map_or((rest, ""), |(a, t)| (a, t));
            let Some((host, port)) = address.rsplit_once(':') else {
                return Err(other(format!("'{text}': expected {kind}:host:port")));
            };
            let host = host.trim_matches(['[', ']']);
            let telnet = if kind == "telnet" { ",telnet=on" } else { "" };
            let sep = if tail.is_empty() { "" } else { "," };
            let host = if host.is_empty() { String::new() } else { format!("host={host},") };
            list("socket", &format!("{host}port={port}{telnet}{sep}{tail}"))
        }
        _ => {
            let hint = did_you_mean(kind, ["file", "pipe", "unix", "tcp", "telnet", "chardev", "mon"]);
            Err(other(format!("'{text}' is not a valid char driver{hint}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, OptError> {
        from_opts(&Opts::parse(text, &desc::CHARDEV)?)
    }

    fn short(text: &str) -> Config {
        match from_short("x", text).unwrap() {
            Short::New { config, .. } => config,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn lists() {
        let c = parsed("socket,id=m,fd=28,server=on,wait=off").unwrap();
        let Backend::Socket(s) = c.backend else { unreachable!() };
        assert_eq!((s.address, s.server, s.wait), (Address::Fd(28), true, false));
        assert_eq!(parsed("ringbuf,id=r,size=4k").unwrap().backend, Backend::Ringbuf { size: 4096 });
        assert!(parsed("stdio,id=s,mux=on,signal=off").unwrap().mux);
        for (bad, text) in [
            ("stdio", "chardev: no id specified"),
            ("soket,id=x", "'soket' is not a valid char driver name (did you mean 'socket'?)"),
            ("file,id=x", "chardev: file: no filename given"),
            ("socket,id=x", "chardev: socket: no path, host or fd given"),
            ("socket,id=x,path=/a,wait=off", "'wait' option is incompatible with socket in client connect mode"),
            ("socket,id=x,path=/a,host=b,port=1", "chardev: socket: only one of path, fd and host can be given"),
        ] {
            assert_eq!(parsed(bad).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn short_forms() {
        assert_eq!(short("stdio").backend, Backend::Stdio { signal: true });
        let c = short("mon:stdio");
        assert_eq!((c.backend, c.mux), (Backend::Stdio { signal: false }, true));
        for (text, fixed) in [("vc", false), ("vc:80Cx24C", true), ("vc:640x480", true)] {
            assert_eq!(short(text).backend, Backend::Vc { fixed }, "{text}");
        }
        for text in ["vc:", "vc:80C", "vc:80Cx", "vc:axb", "vcx"] {
            assert!(from_short("x", text).is_err(), "{text}");
        }
        assert_eq!(short("file:/a,b=").backend, Backend::File { path: "/a,b=".into(), input: None, append: false });
        let Backend::Socket(s) = short("unix:/q,server=on,wait=off").backend else { unreachable!() };
        assert!(s.server && !s.wait);
        let Backend::Socket(s) = short("telnet::4444,server").backend else { unreachable!() };
        assert_eq!(
            (s.address, s.telnet, s.wait),
            (Address::Inet { host: String::new(), port: "4444".into(), to: None, family: Family::Any }, true, true)
        );
        let Backend::Socket(s) = short("tcp:[::1]:5").backend else { unreachable!() };
        assert_eq!(s.address, Address::Inet { host: "::1".into(), port: "5".into(), to: None, family: Family::Any });
        assert_eq!(from_short("x", "none"), Ok(Short::None));
        assert_eq!(from_short("x", "chardev:c"), Ok(Short::Existing("c".into())));
        assert!(from_short("x", "stdi").unwrap_err().to_string().ends_with("(did you mean 'stdio'?)"));
        assert!(from_short("x", "tcp:nowhere").is_err());
    }
}
