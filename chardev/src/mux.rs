//! The multiplexer (`mux=on`, `chardev-mux`): several front ends on one channel, the keyboard belongs to one of them.
//!
//! Keys after the escape key (Ctrl-A): `h` help, `x` end the emulator, `b` break, `c` next front end, `s` write disks back,
//! `t` time stamps on output, Ctrl-A itself.

use crate::channel::Channel;
use crate::frontend::Event;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// Most front ends of one multiplexer.
pub const MAX_FRONTS: usize = 4;
/// Bytes kept for a front end that takes none now: so many can be typed or pasted before a command is not heard any more.
const BUFFER: usize = 4096;

/// State of a multiplexer.
pub struct Mux {
    escape: u8,
    s: Mutex<State>,
}

struct State {
    focus: usize,
    /// Whom the front ends were told to have the keyboard.
    told: Option<usize>,
    escaped: bool,
    /// Typed for each front end, not yet taken.
    typed: [VecDeque<u8>; MAX_FRONTS],
    stamps: Option<Instant>,
    line_start: bool,
}

impl Mux {
    pub(crate) fn new(escape: u8) -> Self {
        let s =
            State { focus: 0, told: None, escaped: false, typed: Default::default(), stamps: None, line_start: true };
        Self { escape, s: Mutex::new(s) }
    }

    /// Tag of the front end that has the keyboard.
    pub fn focus(&self) -> usize {
        self.s.lock().focus
    }

    /// A front end set its handlers.
    pub(crate) fn joined(&self, tag: usize) {
        self.s.lock().focus = tag;
    }

    /// Tells the front ends who has the keyboard, if that is news to them.
    pub(crate) fn announce(&self, channel: &Arc<Channel>) {
        let (old, new) = {
            let mut s = self.s.lock();
            let new = s.focus;
            (s.told.replace(new), new)
        };
        if old == Some(new) {
            return;
        }
        for (tag, event) in old.map(|t| (t, Event::MuxOut)).into_iter().chain([(new, Event::MuxIn)]) {
            if let Some(h) = channel.handlers(tag) {
                (h.event)(event);
            }
        }
    }

    /// Room in the buffer of the front end that has the keyboard. What has no room stays with the host: nothing that is typed is lost.
    pub(crate) fn can_receive(&self) -> usize {
        let s = self.s.lock();
        BUFFER.saturating_sub(s.typed.get(s.focus).map_or(0, VecDeque::len))
    }

    pub(crate) fn receive(&self, channel: &Arc<Channel>, bytes: &[u8]) {
        for byte in bytes {
            self.key(channel, *byte);
        }
        self.flush_input(channel);
    }

    fn key(&self, channel: &Arc<Channel>, byte: u8) {
        let mut s = self.s.lock();
        if !std::mem::take(&mut s.escaped) {
            if byte == self.escape {
                s.escaped = true;
                return;
            }
            return s.keep(byte);
        }
        if byte == self.escape {
            return s.keep(byte);
        }
        match byte {
            b'b' => {
                let focus = s.focus;
                drop(s);
                if let Some(h) = channel.handlers(focus) {
                    (h.event)(Event::Break);
                }
            }
            b'c' => {
                let focus = s.focus;
                drop(s);
                let tags = channel.tags();
                let next = tags.iter().copied().find(|t| *t > focus).or_else(|| tags.first().copied());
                if let Some(next) = next {
                    self.set_focus(channel, next);
                }
            }
            b't' => {
                s.stamps = if s.stamps.is_some() { None } else { Some(Instant::now()) };
                s.line_start = true;
            }
            b'x' => {
                drop(s);
                channel.write_all(b"QEMU: Terminated\n\r");
                (channel.host().quit)();
            }
            // There is nothing to write back without `-snapshot`.
            b's' => {}
            _ => {
                drop(s);
                channel.write_all(self.help().as_bytes());
            }
        }
    }

    fn help(&self) -> String {
        let key = match self.escape {
            c @ 1..=26 => format!("C-{}", char::from(c - 1 + b'a')),
            c => format!("{c:#x}"),
        };
        let rows = [
            ("h", "print this help"),
            ("x", "exit emulator"),
            ("s", "save disk data back to file (if -snapshot)"),
            ("t", "toggle console timestamps"),
            ("b", "send break (magic sysrq)"),
            ("c", "switch between console and monitor"),
        ];
        let mut text = String::from("\n\r");
        for (k, what) in rows {
            text += &format!("{key} {k}    {what}\n\r");
        }
        text + &format!("{key} {key}  sends {key}\n\r")
    }

    pub(crate) fn set_focus(&self, channel: &Arc<Channel>, tag: usize) {
        self.s.lock().focus = tag;
        self.announce(channel);
    }

    /// Hands what was typed to the front ends, as far as they take it.
    pub(crate) fn flush_input(&self, channel: &Arc<Channel>) {
        for tag in channel.tags() {
            let Some(h) = channel.handlers(tag) else { continue };
            loop {
                let waiting = self.s.lock().typed.get(tag).map_or(0, VecDeque::len);
                let n = if waiting == 0 { 0 } else { (h.can_receive)().min(waiting) };
                if n == 0 {
                    break;
                }
                let bytes: Vec<u8> = match self.s.lock().typed.get_mut(tag) {
                    Some(typed) => typed.drain(..n).collect(),
                    None => break,
                };
                (h.receive)(&bytes);
            }
        }
    }

    /// `bytes` with a time stamp at the start of each line, if stamps are on.
    pub(crate) fn stamp(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut s = self.s.lock();
        let since = s.stamps?.elapsed();
        let secs = since.as_secs();
        let stamp =
            format!("[{:02}:{:02}:{:02}.{:03}] ", secs / 3600, secs / 60 % 60, secs % 60, since.subsec_millis());
        let mut out = Vec::with_capacity(bytes.len() + stamp.len());
        for b in bytes {
            if std::mem::take(&mut s.line_start) {
                out.extend(stamp.bytes());
            }
            out.push(*b);
            s.line_start = *b == b'\n';
        }
        Some(out)
    }
}

impl State {
    fn keep(&mut self, byte: u8) {
        if let Some(typed) = self.typed.get_mut(self.focus)
            && typed.len() < BUFFER
        {
            typed.push_back(byte);
        }
    }
}
