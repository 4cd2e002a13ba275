//! `-fsdev` and `-virtfs`, understood: folders of the host for guests.

use super::command_line::{PropArgs, PropInput};
use super::opts::{OptError, Opts};
use hw::fsdev::{FsDev, Multidevs, SecurityModel};

fn other(text: impl Into<String>) -> OptError {
    OptError::Other(text.into())
}

/// The folder that a list describes.
fn folder(o: &Opts) -> Result<FsDev, OptError> {
    match o.get("fsdriver") {
        Some("local") => {}
        Some(driver @ ("synth" | "proxy")) => return Err(other(format!("fsdriver '{driver}' is not built yet"))),
        Some(driver) => return Err(other(format!("fsdriver '{driver}' does not exist (expected local)"))),
        None => return Err(OptError::Missing("fsdriver".into())),
    }
    let models = "expected none, passthrough, mapped-xattr";
    let model = match o.get("security_model") {
        Some("none") => SecurityModel::None,
        Some("passthrough") => SecurityModel::Passthrough,
        Some("mapped" | "mapped-xattr") => SecurityModel::MappedXattr,
        Some("mapped-file") => return Err(other(format!("security_model=mapped-file is not built yet ({models})"))),
        Some(m) => return Err(other(format!("invalid security_model property '{m}' ({models})"))),
        None => return Err(other(format!("security_model property not set ({models})"))),
    };
    let path = o.get("path").ok_or_else(|| other("path property not set"))?.into();
    let multidevs = match o.choice("multidevs", &["warn", "remap", "forbid"])? {
        Some("remap") => Multidevs::Remap,
        Some("forbid") => Multidevs::Forbid,
        _ => Multidevs::Warn,
    };
    let mode = |key: &str, default: u32| -> Result<u32, OptError> {
        let Some(n) = o.number(key)? else { return Ok(default) };
        if model != SecurityModel::MappedXattr {
            return Err(other(format!("{key} is only valid for mapped security modes")));
        }
        Ok((n & 0o777) as u32)
    };
    Ok(FsDev {
        path,
        model,
        readonly: o.switch("readonly")?.unwrap_or(false),
        multidevs,
        modes: (mode("fmode", 0o600)?, mode("dmode", 0o700)?),
        max_xattr: o.number("max_xattr")?.map_or(1024, |n| usize::try_from(n).unwrap_or(usize::MAX)),
    })
}

/// `-fsdev`: the folder's id, and the folder.
///
/// # Errors
/// What is missing or not known.
pub fn fsdev(o: &Opts) -> Result<(String, FsDev), OptError> {
    let id = o.id.clone().ok_or_else(|| OptError::Missing("id".into()))?;
    Ok((id, folder(o)?))
}

/// `-virtfs`: a folder, called by its tag if it has no id, and the function that shows it.
///
/// # Errors
/// As [`fsdev`].
pub fn virtfs(o: &Opts) -> Result<(String, FsDev, PropArgs), OptError> {
    let tag = o.text("mount_tag").ok_or_else(|| OptError::Missing("mount_tag".into()))?;
    let id = o.id.clone().unwrap_or_else(|| tag.clone());
    let props = [("fsdev", &id), ("mount_tag", &tag)];
    let props = props.map(|(k, v)| (k.to_owned(), PropInput::Text(v.clone()))).into();
    let device = PropArgs { type_name: "virtio-9p-pci".into(), id: None, props, help: false };
    Ok((id, folder(o)?, device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::desc;

    fn one(text: &str) -> Result<(String, FsDev), String> {
        Opts::parse(text, &desc::FSDEV).and_then(|o| fsdev(&o)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_folder_is_described_in_full() {
        let (id, f) =
            one("local,id=x,path=/a,security_model=mapped,fmode=0640,dmode=0x1c0,readonly=on,multidevs=remap").unwrap();
        assert_eq!((id.as_str(), f.path.to_str(), f.model), ("x", Some("/a"), SecurityModel::MappedXattr));
        assert_eq!((f.modes, f.readonly, f.multidevs, f.max_xattr), ((0o640, 0o700), true, Multidevs::Remap, 1024));
    }

    #[test]
    fn what_is_missing_or_not_built_is_named() {
        for (text, message) in [
            ("local,path=/a,security_model=none", "Parameter 'id' is missing"),
            ("local,id=x,path=/a", "security_model property not set (expected none, passthrough, mapped-xattr)"),
            ("local,id=x,security_model=none", "path property not set"),
            (
                "local,id=x,path=/,security_model=y",
                "invalid security_model property 'y' (expected none, passthrough, mapped-xattr)",
            ),
            (
                "local,id=x,path=/,security_model=mapped-file",
                "security_model=mapped-file is not built yet (expected none, passthrough, mapped-xattr)",
            ),
            ("local,id=x,path=/,security_model=none,fmode=0600", "fmode is only valid for mapped security modes"),
            ("synth,id=x", "fsdriver 'synth' is not built yet"),
            (
                "local,id=x,path=/,security_model=none,writeout=immediate",
                "parameter 'writeout' of QEMU is not built yet",
            ),
            (
                "local,id=x,path=/,security_model=none,multidevs=z",
                "Parameter 'multidevs' does not accept value 'z' (expected warn, remap, forbid)",
            ),
        ] {
            assert_eq!(one(text).unwrap_err(), message);
        }
        let o = Opts::parse("local,path=/,security_model=none", &desc::VIRTFS).unwrap();
        assert_eq!(virtfs(&o).unwrap_err().to_string(), "Parameter 'mount_tag' is missing");
    }
}
