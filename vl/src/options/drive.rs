//! `-drive`, `-blockdev` and the short forms of `-drive`, understood.

use super::desc;
use super::opts::{OptError, Opts};
use crate::json;
use block::throttle::Limits;
use block::{DriveConfig, ErrorPolicy, Interface};
use serde_json::Value;

fn other(text: impl Into<String>) -> OptError {
    OptError::Other(text.into())
}

fn generic(e: &qom::Error) -> OptError {
    other(e.to_string())
}

/// `-blockdev`: JSON or a list whose first item may be the driver.
///
/// # Errors
/// Neither.
pub fn blockdev(text: &str) -> Result<block::Opts, OptError> {
    if text.starts_with('{') {
        return match json::from_str(text).map_err(|e| other(e.to_string()))? {
            Value::Object(map) => Ok(block::Opts::json(map)),
            _ => Err(other("expected a JSON object")),
        };
    }
    let o = Opts::parse(text, &desc::BLOCKDEV)?;
    block::Opts::keyval(o.pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()))).map_err(|e| generic(&e))
}

/// A short form: its option, what it stands for.
#[derive(Clone, Copy, Debug)]
pub struct Short {
    /// `hda`.
    pub name: &'static str,
    /// What `-help` says.
    pub help: &'static str,
    /// `if`.
    pub interface: &'static str,
    /// `index`.
    pub index: u32,
    /// `media`, where there is a choice.
    pub media: Option<&'static str>,
}

/// The CD drive that machines have by default.
pub const CDROM: Short = short("cdrom", "use 'file' as CD-ROM image", "ide", 2, Some("cdrom"));
/// The floppy drive that machines have by default.
pub const FDA: Short = short("fda", "use 'file' as floppy disk 0 image", "floppy", 0, None);
/// Its neighbour.
pub const FDB: Short = short("fdb", "use 'file' as floppy disk 1 image", "floppy", 1, None);
/// The disks of the board's IDE controller.
pub const DISKS: [Short; 4] = [
    short("hda", "use 'file' as hard disk 0 image", "ide", 0, Some("disk")),
    short("hdb", "use 'file' as hard disk 1 image", "ide", 1, Some("disk")),
    short("hdc", "use 'file' as hard disk 2 image", "ide", 2, Some("disk")),
    short("hdd", "use 'file' as hard disk 3 image", "ide", 3, Some("disk")),
];

const fn short(
    name: &'static str,
    help: &'static str,
    interface: &'static str,
    index: u32,
    media: Option<&'static str>,
) -> Short {
    Short { name, help, interface, index, media }
}

/// The list that a short form stands for.
pub fn from_short(file: &str, short: &Short) -> Opts {
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let mut pairs = vec![pair("if", short.interface), pair("index", &short.index.to_string())];
    pairs.extend(short.media.map(|m| pair("media", m)));
    if !file.is_empty() {
        pairs.push(pair("file", file));
    }
    Opts { pairs, ..Opts::default() }
}

/// What `cache=` sets: write cache, direct, no flush.
fn cache_mode(word: &str) -> Option<(bool, bool, bool)> {
    Some(match word {
        "none" | "off" => (true, true, false),
        "writeback" => (true, false, false),
        "unsafe" => (true, false, true),
        "writethrough" => (false, false, false),
        "directsync" => (false, true, false),
        _ => return None,
    })
}

/// Understands a list; `snapshot`: `-snapshot` was given.
///
/// # Errors
/// A value that is none, or something that is not built.
pub fn drive(o: &Opts, snapshot: bool) -> Result<DriveConfig, OptError> {
    let number = |key: &str| -> Result<Option<u32>, OptError> {
        o.number(key)?.map(|n| u32::try_from(n).map_err(|_| OptError::Number(key.into()))).transpose()
    };
    let interface = match o.get("if") {
        None | Some("ide") => Interface::Ide,
        Some("none") => Interface::None,
        Some("virtio") => Interface::Virtio,
        Some("floppy") => Interface::Floppy,
        Some(word @ ("scsi" | "sd" | "mtd" | "pflash" | "xen")) => {
            return Err(other(format!("if={word} is not built yet (accepted: ide, floppy, virtio, none)")));
        }
        Some(word) => return Err(other(format!("unsupported bus type '{word}'"))),
    };
    let cdrom = match o.get("media") {
        None | Some("disk") => false,
        Some("cdrom") => true,
        Some(word) => return Err(other(format!("'{word}' invalid media"))),
    };
    let mut pairs: Vec<(String, String)> = vec![];
    let mut write_cache = true;
    if let Some(word) = o.get("cache") {
        let (wce, direct, no_flush) = cache_mode(word).ok_or_else(|| other("invalid cache option"))?;
        write_cache = wce;
        for (key, on) in [("cache.direct", direct), ("cache.no-flush", no_flush)] {
            pairs.push((key.into(), if on { "on" } else { "off" }.into()));
        }
    }
    if o.get("format").is_some() && o.get("driver").is_some() {
        return Err(other("Cannot specify both 'driver' and 'format'"));
    }
    for (key, value) in &o.pairs {
        let key = match key.as_str() {
            "if" | "media" | "cache" | "index" | "bus" | "unit" | "snapshot" | "werror" | "rerror" | "file"
            | "cache.writeback" | "copy-on-read" => continue,
            key if key.starts_with("throttling.") => continue,
            "format" => "driver",
            "readonly" => "read-only",
            key => key,
        };
        pairs.retain(|p| p.0 != key);
        pairs.push((key.into(), value.clone()));
    }
    let aio = pairs.iter().position(|p| p.0 == "aio").map(|at| pairs.remove(at).1);
    let file = o.text("file").filter(|f| !f.is_empty());
    if let (Some(aio), true) = (aio, file.is_some() || pairs.iter().any(|p| p.0.starts_with("file."))) {
        pairs.push(("file.aio".into(), aio));
    }
    let action = |key: &str, read: bool| -> Result<block::OnError, OptError> {
        match o.get(key) {
            Some(word) => block::on_error(word, read).map_err(|e| generic(&e)),
            None => Ok(block::OnError::Auto),
        }
    };
    if let (Interface::Floppy, Some(key)) = (interface, ["werror", "rerror"].into_iter().find(|k| o.get(k).is_some())) {
        return Err(other(format!("{key} is not supported by this bus type")));
    }
    let mut limits = Limits::default();
    for (key, _) in &o.pairs {
        if let Some(name) = key.strip_prefix("throttling.").filter(|n| *n != "group") {
            let value = o.number(key)?.unwrap_or(0);
            if !limits.set(name, value) {
                return Err(other(format!("Invalid parameter '{key}'")));
            }
        }
    }
    limits.check().map_err(|e| generic(&e))?;
    let copy_on_read = o.switch("copy-on-read")?.unwrap_or(false);
    if copy_on_read && o.switch("read-only")?.or(o.switch("readonly")?).unwrap_or(false) {
        return Err(other("copy-on-read=on needs a drive that can be written"));
    }
    let policy = ErrorPolicy { read: action("rerror", true)?, write: action("werror", false)? };
    Ok(DriveConfig {
        id: o.id.clone(),
        interface,
        index: number("index")?,
        bus: number("bus")?,
        unit: number("unit")?,
        cdrom,
        snapshot: o.switch("snapshot")?.unwrap_or(snapshot),
        write_cache: o.switch("cache.writeback")?.unwrap_or(write_cache),
        policy,
        copy_on_read,
        limits,
        group: o.text("throttling.group"),
        file,
        opts: block::Opts::keyval(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()))).map_err(|e| generic(&e))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<DriveConfig, String> {
        let o = Opts::parse(text, &desc::DRIVE).map_err(|e| e.to_string())?;
        drive(&o, false).map_err(|e| e.to_string())
    }

    #[test]
    fn lists_are_understood() {
        let d =
            parsed("file=/a,,b,format=raw,if=none,id=x,cache=none,media=cdrom,werror=stop,file.locking=off").unwrap();
        assert_eq!((d.id.as_deref(), d.file.as_deref(), d.cdrom), (Some("x"), Some("/a,b"), true));
        assert_eq!((d.interface, d.write_cache, d.policy.write), (Interface::None, true, block::OnError::Stop));
        let mut opts = d.opts;
        assert_eq!(opts.take_str("driver").unwrap().as_deref(), Some("raw"));
        assert_eq!(opts.take_object("cache").unwrap().unwrap().take_bool("direct").unwrap(), Some(true));
        assert!(!parsed("cache=directsync").unwrap().write_cache);
        let d =
            parsed("throttling.iops-read=5,throttling.iops-read-max=50,throttling.iops-size=4096,throttling.group=g")
                .unwrap();
        assert_eq!(
            (d.limits.all[4].avg, d.limits.all[4].max, d.limits.all[4].length, d.limits.iops_size),
            (5, 50, 1, 4096)
        );
        assert_eq!(d.group.as_deref(), Some("g"));
        for (bad, message) in [
            ("if=scsi", "if=scsi is not built yet (accepted: ide, floppy, virtio, none)"),
            ("if=floppy,werror=stop", "werror is not supported by this bus type"),
            ("if=usb", "unsupported bus type 'usb'"),
            ("media=tape", "'tape' invalid media"),
            ("cache=no", "invalid cache option"),
            ("rerror=enospc", "'enospc' invalid read error action"),
            ("format=raw,driver=raw", "Cannot specify both 'driver' and 'format'"),
            ("copy-on-read=on,read-only=on", "copy-on-read=on needs a drive that can be written"),
            (
                "throttling.bps-total=1,throttling.bps-read=1",
                "bps/iops/max total values and read/write values cannot be used at the same time",
            ),
        ] {
            assert_eq!(parsed(bad).unwrap_err(), message);
        }
        assert_eq!(drive(&from_short("/d", &CDROM), false).unwrap().index, Some(2));
    }

    #[test]
    fn nodes_are_json_or_lists() {
        assert!(blockdev("{\"driver\":\"null-co\",\"node-name\":\"n\"}").unwrap().has("driver"));
        let mut o = blockdev("raw,node-name=n,file.driver=null-co").unwrap();
        assert_eq!(o.take_str("driver").unwrap().as_deref(), Some("raw"));
        assert!(o.take_object("file").unwrap().is_some());
        assert!(blockdev("{").is_err() && blockdev("{\"driver\":}").is_err());
    }
}
