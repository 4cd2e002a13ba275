//! Messages to the user: one line each on standard error, with the program's name and, on request, the time.

use crate::options::CommandLine;
use parking_lot::Mutex;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

type Sink = Box<dyn Fn(&str) + Send + Sync>;

/// Where messages go.
pub struct Reporter {
    prefix: String,
    timestamp: bool,
    guest_name: Option<String>,
    sink: Mutex<Sink>,
}

impl Reporter {
    /// To standard error, each line opened by `program: `.
    pub fn stderr(program: &str) -> Self {
        // A closed standard error is no reason to stop.
        Self::new(format!("{program}: "), |line| drop(writeln!(std::io::stderr(), "{line}")))
    }

    /// To `sink`, each line opened by `prefix`.
    pub fn new(prefix: String, sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { prefix, timestamp: false, guest_name: None, sink: Mutex::new(Box::new(sink)) }
    }

    /// `-msg timestamp=on`, `-msg guest-name=on`.
    pub fn with_format(mut self, timestamp: bool, guest_name: Option<String>) -> Self {
        (self.timestamp, self.guest_name) = (timestamp, guest_name);
        self
    }

    /// The format that a command line's `-msg` asks for.
    pub fn for_line(self, line: &CommandLine) -> Self {
        let on = |key: &str| line.msg.switch(key).ok().flatten().unwrap_or(false);
        let guest = on("guest-name").then(|| line.name.text("guest")).flatten();
        self.with_format(on("timestamp"), guest)
    }

    /// One message. `info: ` in front of it is for people and stays away from what tools parse as an error.
    pub fn say(&self, message: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time =
            if self.timestamp { format!("{} ", iso8601(now.as_secs(), now.subsec_micros())) } else { String::new() };
        let guest = self.guest_name.as_ref().map(|g| format!("{g} ")).unwrap_or_default();
        let line = format!("{time}{guest}{}{message}", self.prefix);
        (self.sink.lock())(&line);
    }
}

/// UTC in ISO 8601 with microseconds. Days to civil date after H. Hinnant's public-domain algorithm `civil_from_days`.
pub(crate) fn iso8601(secs: u64, micros: u32) -> String {
    let (days, rest) = (secs / 86400, secs % 86400);
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{micros:06}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn dates() {
        assert_eq!(iso8601(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(iso8601(951_782_399, 5), "2000-02-28T23:59:59.000005Z");
        assert_eq!(iso8601(951_782_400, 0), "2000-02-29T00:00:00.000000Z");
        assert_eq!(iso8601(1_798_761_599, 0), "2026-12-31T23:59:59.000000Z");
    }

    #[test]
    fn lines_are_prefixed() {
        let seen = Arc::new(Mutex::new(String::new()));
        let s = seen.clone();
        let r = Reporter::new("qomet: ".into(), move |l| *s.lock() = l.into()).with_format(true, Some("g".into()));
        r.say("hello");
        assert!(seen.lock().ends_with("Z g qomet: hello") && seen.lock().contains('T'));
    }
}
