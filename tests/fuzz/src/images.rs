//! Images of all formats. Files are vectors: what an image names beside itself is not there.

use crate::input::Input;
use crate::memory::Named;
use block::{Blocks, Node, Opts};
use serde_json::{Value, json};
use std::sync::Arc;

/// Longest input.
const MOST: usize = 64 << 10;
/// Longest access of a guest.
const LONGEST: u64 = 64 << 10;
/// Steps.
const STEPS: usize = 24;
/// Accesses to the file that one access of the guest may cost: a constant and some for each of its sectors and each sector of the file
/// (an image marked dirty is read whole when it is opened).
const COST: (u64, u64, u64) = (512, 24, 16);

fn open(options: Value) -> Option<(Blocks, Arc<Node>)> {
    let blocks = Blocks::default();
    let Value::Object(options) = options else { return None };
    let node = blocks.blockdev_add(Opts::json(options)).ok()?;
    Some((blocks, node))
}

/// Counts what something costs.
fn within<R>(what: &str, file: &Named, len: u64, f: impl FnOnce() -> R) -> R {
    let before = file.accesses();
    let result = f();
    let (cost, size) = (file.accesses() - before, file.bytes().len() as u64);
    let (fixed, own, whole) = COST;
    let most = fixed + own * (len / 512) + whole * (size / 512);
    assert!(cost <= most, "{what} of {len} bytes costs {cost} accesses to a file of {size} bytes, more than {most}");
    result
}

fn file(named: &Named) -> Value {
    json!({"driver": "fuzz-memory", "number": named.number})
}

/// Opens a qcow2 image and uses it: number of steps, steps of 8 bytes, the image.
pub fn qcow2(data: &[u8]) {
    let mut input = Input::new(data, MOST);
    let steps = input.below(STEPS);
    let mut steps = Input::new(input.take(steps * 8), MOST);
    let image = input.rest().to_vec();
    let external = image.get(7) == Some(&3) && image.get(79).is_some_and(|b| b & 4 != 0);
    let (named, data_file) = (Named::new(image), Named::new(vec![]));
    let mut options = json!({
        "driver": "qcow2", "node-name": "n", "discard": "unmap", "file": file(&named), "backing": null,
        "read-only": steps.is_empty(),
    });
    if external {
        // Else the image would say which file of the host that is.
        options["data-file"] = file(&data_file);
    }
    let before = named.bytes();
    let Some((_blocks, node)) = within("opening", &named, 0, || open(options)) else {
        assert!(named.bytes() == before, "an image that cannot be opened was changed");
        return;
    };
    let Ok(size) = node.len() else { return };
    let mut buf = vec![0; LONGEST as usize];
    for at in [0, size / 2, size.saturating_sub(LONGEST)] {
        let at = at & !511;
        let n = LONGEST.min(size.saturating_sub(at));
        _ = within("reading", &named, n, || node.read(at, &mut buf[..n as usize]));
    }
    if steps.is_empty() {
        assert!(named.bytes() == before, "reading changed an image");
    }
    while !steps.is_empty() {
        let (what, fine, len, at) = (steps.byte(), steps.byte(), steps.word(), steps.long());
        let at = (u64::from(at) << 9).wrapping_add(u64::from(fine)) & !511;
        let at = if fine & 1 == 0 { (at % size.max(1)) & !511 } else { at };
        let len = (u64::from(len) << 5 & !511).min(LONGEST).min(size.saturating_sub(at));
        let buf = &mut buf[..len as usize];
        within("a step", &named, len, || match what % 8 {
            0 | 1 => {
                buf.fill(what);
                if node.write(at, buf).is_ok() {
                    buf.fill(!what);
                    let again = node.read(at, buf);
                    assert!(again.is_err() || buf.iter().all(|b| *b == what), "what was written is not there");
                }
            }
            2 => _ = node.read(at, buf),
            3 => {
                if node.write_zeroes(at, len, what & 8 != 0).is_ok() {
                    let again = node.read(at, buf);
                    assert!(again.is_err() || buf.iter().all(|b| *b == 0), "zeros are not there");
                }
            }
            4 => _ = node.discard(at, len),
            5 => _ = node.flush(),
            6 => _ = node.resize(at & !511),
            _ => _ = node.driver().populate(at, len),
        });
    }
}

/// The formats that are read only, and guessing which one it is. First byte: which.
pub fn formats(data: &[u8]) {
    let mut input = Input::new(data, MOST);
    let driver = ["vdi", "vhdx", "vmdk", "vpc", "raw", "qcow2"][input.below(6)];
    let named = Named::new(input.rest().to_vec());
    let before = named.bytes();
    _ = block::probe::format_of(&before);
    let options = json!({"driver": driver, "node-name": "n", "read-only": true, "file": file(&named)});
    if driver == "qcow2" && before.get(79).is_some_and(|b| b & 4 != 0) {
        return; // it would say which file of the host has its data
    }
    let mut options = options;
    if driver == "qcow2" {
        options["backing"] = Value::Null;
    }
    let Some((_blocks, node)) = within("opening", &named, 0, || open(options)) else { return };
    let Ok(size) = node.len() else { return };
    let mut buf = vec![0; LONGEST as usize];
    for n in 0..16 {
        let at = (size / 16).saturating_mul(n) & !511;
        let len = LONGEST.min(size.saturating_sub(at));
        _ = within("reading", &named, len, || node.read(at, &mut buf[..len as usize]));
    }
    assert!(named.bytes() == before, "reading changed an image");
}
