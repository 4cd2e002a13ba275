//! Line editing for the human monitor: cursor keys, history, the usual control keys. No completion.

/// What a byte led to.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
    /// Nothing but what `Readline::take_output` shows.
    Edited,
    /// A line was finished.
    Line(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Escape {
    #[default]
    None,
    Esc,
    Csi(u8),
    Ss3,
}

/// Longest line.
const MAX_LINE: usize = 4095;
/// Lines remembered.
const MAX_HISTORY: usize = 64;

/// An edited line and its history. Bytes that are not ASCII are kept as they come.
#[derive(Debug)]
pub struct Readline {
    prompt: &'static str,
    line: Vec<u8>,
    cursor: usize,
    history: Vec<Vec<u8>>,
    /// Position while walking the history, and the line that was left for it.
    walk: Option<(usize, Vec<u8>)>,
    escape: Escape,
    out: Vec<u8>,
    /// After a carriage return a line feed belongs to it.
    swallow_lf: bool,
}

impl Readline {
    /// An empty line behind `prompt`.
    pub fn new(prompt: &'static str) -> Self {
        Self {
            prompt,
            line: vec![],
            cursor: 0,
            history: vec![],
            walk: None,
            escape: Escape::None,
            out: vec![],
            swallow_lf: false,
        }
    }

    /// What the terminal must be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Forgets the line and shows the prompt.
    pub fn restart(&mut self) {
        self.line.clear();
        self.cursor = 0;
        self.walk = None;
        self.escape = Escape::None;
        self.out.extend(self.prompt.bytes());
    }

    /// Takes one byte from the keyboard.
    pub fn key(&mut self, byte: u8) -> Key {
        let swallow = std::mem::take(&mut self.swallow_lf);
        match (std::mem::take(&mut self.escape), byte) {
            (Escape::None, b'\n') if swallow => {}
            (Escape::None, b'\r' | b'\n') => {
                self.swallow_lf = byte == b'\r';
                return self.finish();
            }
            (Escape::None, _) => self.plain(byte),
            (Escape::Esc, b'[') => self.escape = Escape::Csi(0),
            (Escape::Esc, b'O') => self.escape = Escape::Ss3,
            (Escape::Esc, _) => {}
            (Escape::Ss3, b'H') => self.go(0),
            (Escape::Ss3, b'F') => self.go(self.line.len()),
            (Escape::Ss3, _) => {}
            (Escape::Csi(n), b'0'..=b'9') => {
                self.escape = Escape::Csi(n.saturating_mul(10).saturating_add(byte - b'0'));
            }
            (Escape::Csi(n), _) => self.csi(n, byte),
        }
        Key::Edited
    }

    fn plain(&mut self, byte: u8) {
        match byte {
            1 => self.go(0),
            2 => self.go(self.cursor.saturating_sub(1)),
            4 => self.delete(),
            5 => self.go(self.line.len()),
            6 => self.go(self.cursor + 1),
            8 | 127 => {
                if self.cursor > 0 {
                    self.go(self.cursor - 1);
                    self.delete();
                }
            }
            11 => {
                self.line.truncate(self.cursor);
                self.out.extend(b"\x1b[K");
            }
            12 => {
                self.out.extend(b"\x1b[2J\x1b[1;1H");
                self.redraw();
            }
            14 => self.recall(1),
            16 => self.recall(-1),
            21 => {
                self.line.drain(..self.cursor);
                self.cursor = 0;
                self.redraw();
            }
            23 => self.delete_word(),
            27 => self.escape = Escape::Esc,
            0..=31 => {}
            _ => self.insert(byte),
        }
    }

    fn csi(&mut self, n: u8, byte: u8) {
        match (n, byte) {
            (_, b'A') => self.recall(-1),
            (_, b'B') => self.recall(1),
            (_, b'C') => self.go(self.cursor + 1),
            (_, b'D') => self.go(self.cursor.saturating_sub(1)),
            (_, b'H') | (1 | 7, b'~') => self.go(0),
            (_, b'F') | (4 | 8, b'~') => self.go(self.line.len()),
            (3, b'~') => self.delete(),
            (_, b';') => self.escape = Escape::Csi(0),
            _ => {}
        }
    }

    fn insert(&mut self, byte: u8) {
        if self.line.len() >= MAX_LINE {
            return;
        }
        self.line.insert(self.cursor, byte);
        self.cursor += 1;
        self.out.push(byte);
        self.show_rest(false);
    }

    fn delete(&mut self) {
        if self.cursor < self.line.len() {
            self.line.remove(self.cursor);
            self.show_rest(true);
        }
    }

    fn delete_word(&mut self) {
        let before = self.line.get(..self.cursor).unwrap_or_default();
        let trimmed = before.iter().rposition(|b| *b != b' ').map_or(0, |at| at + 1);
        let kept = before.get(..trimmed).unwrap_or_default();
        let start = kept.iter().rposition(|b| *b == b' ').map_or(0, |at| at + 1);
        self.line.drain(start..self.cursor);
        self.cursor = start;
        self.redraw();
    }

    /// Writes what stands behind the cursor and comes back.
    fn show_rest(&mut self, erase: bool) {
        let rest = self.line.get(self.cursor..).unwrap_or_default();
        self.out.extend(rest);
        if erase {
            self.out.extend(b"\x1b[K");
        }
        self.out.extend(std::iter::repeat_n(8, rest.len()));
    }

    fn go(&mut self, to: usize) {
        let to = to.min(self.line.len());
        if to < self.cursor {
            self.out.extend(std::iter::repeat_n(8, self.cursor - to));
        } else {
            self.out.extend(self.line.get(self.cursor..to).unwrap_or_default());
        }
        self.cursor = to;
    }

    fn redraw(&mut self) {
        self.out.push(b'\r');
        self.out.extend(self.prompt.bytes());
        self.out.extend(self.line.get(..self.cursor).unwrap_or_default());
        self.show_rest(true);
    }

    fn recall(&mut self, step: isize) {
        let (at, kept) = self.walk.take().unwrap_or_else(|| (self.history.len(), self.line.clone()));
        let to = at.saturating_add_signed(step).min(self.history.len());
        self.line = self.history.get(to).cloned().unwrap_or_else(|| kept.clone());
        self.cursor = self.line.len();
        self.walk = Some((to, kept));
        self.redraw();
    }

    fn finish(&mut self) -> Key {
        self.out.extend(b"\r\n");
        let line = std::mem::take(&mut self.line);
        self.cursor = 0;
        self.walk = None;
        if !line.is_empty() {
            self.history.retain(|h| *h != line);
            self.history.push(line.clone());
            if self.history.len() > MAX_HISTORY {
                self.history.remove(0);
            }
        }
        Key::Line(String::from_utf8_lossy(&line).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(r: &mut Readline, keys: &[u8]) -> Vec<String> {
        keys.iter().filter_map(|k| if let Key::Line(l) = r.key(*k) { Some(l) } else { None }).collect()
    }

    #[test]
    fn editing_keys() {
        let mut r = Readline::new("(qemu) ");
        assert_eq!(lines(&mut r, b"info staus\x1b[D\x1b[Dt\r\n"), ["info status"]);
        assert_eq!(lines(&mut r, b"abc\x7f\x7fxy\x01>\x05<\n"), [">axy<"]);
        assert_eq!(lines(&mut r, b"one two \x17three\x0b\n"), ["one three"]);
        assert_eq!(lines(&mut r, b"abc\x02\x02\x04\x1b[3~\x15d\n"), ["d"]);
    }

    #[test]
    fn history_goes_up_and_down() {
        let mut r = Readline::new("(qemu) ");
        lines(&mut r, b"first\nsecond\n");
        assert_eq!(lines(&mut r, b"\x1b[A\x1b[A\n"), ["first"]);
        assert_eq!(lines(&mut r, b"new\x10\x0e!\n"), ["new!"]);
    }

    #[test]
    fn what_is_typed_is_shown() {
        let mut r = Readline::new("(qemu) ");
        r.restart();
        r.key(b'a');
        r.key(b'c');
        r.key(2);
        r.key(b'b');
        assert_eq!(r.take_output(), b"(qemu) ac\x08bc\x08");
    }
}
