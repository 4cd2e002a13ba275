//! The little of telnet that a serial console needs: character mode offered by the server, commands taken out of the input.
//! Source: RFC 854 (commands), RFC 856 (binary), RFC 857 (echo), RFC 858 (suppress go-ahead).

use crate::frontend::Event;

const IAC: u8 = 255;
const DONT: u8 = 254;
const WILL: u8 = 251;
const DO: u8 = 253;
const SB: u8 = 250;
const SE: u8 = 240;
const BREAK: u8 = 243;

/// What the server sends first: it echoes, there is no go-ahead, bytes have eight bits both ways.
pub(crate) const HELLO: [u8; 12] = [IAC, WILL, 1, IAC, WILL, 3, IAC, WILL, 0, IAC, DO, 0];

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    #[default]
    Data,
    Iac,
    Option,
    Sub,
    SubIac,
    /// After a carriage return, which telnet follows by a zero or a line feed.
    Cr,
}

/// Takes commands out of a stream.
#[derive(Debug, Default)]
pub(crate) struct Telnet(State);

impl Telnet {
    /// Leaves only data in `bytes`; says what else was in it.
    pub(crate) fn filter(&mut self, bytes: &mut Vec<u8>) -> Vec<Event> {
        let mut found = vec![];
        bytes.retain(|b| {
            let (next, keep) = match (self.0, *b) {
                (State::Data | State::Cr, IAC) => (State::Iac, false),
                (State::Cr, 0) => (State::Data, false),
                (State::Data | State::Cr, b'\r') => (State::Cr, true),
                (State::Data | State::Cr, _) => (State::Data, true),
                (State::Iac, IAC) => (State::Data, true),
                (State::Iac, WILL..=DONT) => (State::Option, false),
                (State::Iac, SB) => (State::Sub, false),
                (State::Iac, BREAK) => {
                    found.push(Event::Break);
                    (State::Data, false)
                }
                (State::Iac | State::Option, _) => (State::Data, false),
                (State::Sub, IAC) => (State::SubIac, false),
                (State::SubIac, SE) => (State::Data, false),
                (State::Sub | State::SubIac, _) => (State::Sub, false),
            };
            self.0 = next;
            keep
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_leave_the_stream_also_when_split() {
        let mut t = Telnet::default();
        let mut first = vec![b'a', IAC];
        let mut second = vec![DO, 1, b'b', IAC, IAC, IAC, BREAK, b'\r', 0, b'c', IAC, SB, 31, IAC, SE, b'd'];
        assert!(t.filter(&mut first).is_empty());
        assert_eq!(t.filter(&mut second), [Event::Break]);
        assert_eq!((first, second), (b"a".to_vec(), vec![b'b', IAC, b'\r', b'c', b'd']));
    }
}
