//! Drives and their media: `drive_add`, `drive_del`, `change`, `eject`, `block_resize`.

use super::commands::{qmp, text};
use super::{Call, Result};
use crate::options::opts::Opts;
use crate::options::{desc, drive, size};
use serde_json::{Map, json};

/// The words of a line: what is in double quotes is one, in which a backslash takes the next character as it is.
fn words(line: &str) -> std::result::Result<Vec<String>, String> {
    let (mut all, mut now) = (vec![], None::<String>);
    let (mut letters, mut quoted) = (line.chars(), false);
    while let Some(c) = letters.next() {
        match c {
            '"' => {
                quoted = !quoted;
                now.get_or_insert_default();
            }
            '\\' if quoted => now.get_or_insert_default().extend(letters.next()),
            c if c.is_whitespace() && !quoted => all.extend(now.take()),
            c => now.get_or_insert_default().push(c),
        }
    }
    all.extend(now);
    if quoted { Err("unterminated string literal".into()) } else { Ok(all) }
}

/// `drive_add [-n] [[<domain>:]<bus>:]<slot> key=value…`: a drive that a device may take later, or with `-n` a node. The place meant
/// something to machines of old only.
pub(super) fn drive_add(c: &mut Call<'_>) -> Result {
    let (node, rest) = c.args.strip_prefix("-n ").map_or((false, c.args), |rest| (true, rest.trim()));
    let (_, list) = rest.split_once(char::is_whitespace).ok_or("expected: [-n] slot key=value[,...]")?;
    let list = list.trim();
    if node {
        return c.vm.blocks.node_add(drive::blockdev(list).map_err(text)?).map(drop).map_err(text);
    }
    let config = drive::drive(&Opts::parse(list, &desc::DRIVE).map_err(text)?, c.vm.options.snapshot).map_err(text)?;
    if config.interface != block::Interface::None {
        return Err(format!("Can't hot-add drive to type {} (accepted: none)", config.interface.name()));
    }
    c.vm.blocks.add_drive(config).map_err(text)?;
    c.out.push_str("OK\n");
    Ok(())
}

/// `drive_del device`: a drive's, whose device finds nothing behind it any more, or a node.
pub(super) fn drive_del(c: &mut Call<'_>) -> Result {
    if c.args.is_empty() {
        return Err("expected: device".into());
    }
    let (vm, name) = (c.vm.clone(), c.args);
    let Some(drive) = vm.blocks.backend(name) else {
        if vm.blocks.find_node(name).is_none() {
            return Err(format!("Device '{name}' not found"));
        }
        return vm.blocks.blockdev_del(name).map_err(text);
    };
    vm.parked(|| vm.blocks.drive_del(&drive)).map_err(text)
}

/// `change device [-f] filename [format [read-only-mode]]`.
pub(super) fn change(c: &mut Call<'_>) -> Result {
    let mut words = words(c.args)?.into_iter().peekable();
    let mut args = Map::new();
    args.insert(
        "device".into(),
        words.next().ok_or("expected: device [-f] filename [format [read-only-mode]]")?.into(),
    );
    args.insert("force".into(), words.next_if(|w| w == "-f").is_some().into());
    args.insert("filename".into(), words.next().ok_or("expected: filename")?.into());
    args.extend(words.next().map(|format| ("format".into(), format.into())));
    args.extend(words.next().map(|mode| ("read-only-mode".into(), mode.into())));
    qmp(c, "blockdev-change-medium", args.into())
}

/// `eject [-f] device`.
pub(super) fn eject(c: &mut Call<'_>) -> Result {
    let (force, device) = c.args.strip_prefix("-f ").map_or((false, c.args), |device| (true, device.trim()));
    if device.is_empty() {
        return Err("expected: [-f] device".into());
    }
    qmp(c, "eject", json!({"device": device, "force": force}))
}

/// `block_resize device size`, the size in MiB without a suffix.
pub(super) fn resize(c: &mut Call<'_>) -> Result {
    let (device, amount) = c.args.split_once(char::is_whitespace).ok_or("expected: device size")?;
    let bytes = size::size(amount.trim(), 1 << 20).ok_or("invalid size")?;
    qmp(c, "block_resize", json!({"device": device, "size": bytes}))
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(words(r#"cd0  "/a b/\"c\"" raw"#).unwrap(), ["cd0", "/a b/\"c\"", "raw"]);
        assert_eq!(words(r#"x "" "#).unwrap(), ["x", ""]);
        assert!(words("").unwrap().is_empty() && words("\"x").is_err());
    }
}
