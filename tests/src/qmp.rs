//! A QMP client for tests.

use crate::process::{self, LIMIT};
use crate::schema::Schema;
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ExitStatus};

/// One connection, and the process behind it if this started one.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    events: VecDeque<Value>,
    child: Option<Child>,
    /// Folder of the socket.
    dir: Option<tempfile::TempDir>,
    /// Commands of this connection that worked.
    worked: BTreeSet<String>,
    /// Events that came, taken or not.
    came: BTreeSet<String>,
    /// The greeting.
    pub greeting: Value,
}

impl Qmp {
    /// Starts the binary with `args` and a monitor, and negotiates.
    ///
    /// # Panics
    /// When it does not come up; its messages are shown.
    pub fn start(args: &[&str]) -> Self {
        Self::start_binary(&process::binary(), args)
    }

    /// [`Qmp::start`] for another binary.
    pub fn start_binary(binary: &Path, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("qmp");
        let monitor = format!("unix:{},server=on,wait=off", path.display());
        let all: Vec<&str> = args.iter().copied().chain(["-qmp", &monitor]).collect();
        let mut child = process::start_binary(binary, &all, &[]);
        let mut ended = false;
        process::until("the monitor's socket", || {
            ended = child.try_wait().expect("our child").is_some();
            ended || path.exists()
        });
        if ended {
            let out = process::finish(child);
            panic!("the machine did not start: {}", out.stderr);
        }
        let mut qmp = Self::connect(&path);
        qmp.run("qmp_capabilities", json!({}));
        (qmp.child, qmp.dir) = (Some(child), Some(dir));
        qmp
    }

    /// Connects and reads the greeting; negotiation is left to the caller.
    ///
    /// # Panics
    /// When nobody greets.
    pub fn connect(path: &Path) -> Self {
        let mut stream = None;
        process::until("a connection", || {
            stream = UnixStream::connect(path).ok();
            stream.is_some()
        });
        let writer = stream.expect("connected");
        writer.set_read_timeout(Some(LIMIT)).expect("a socket takes a timeout");
        let reader = BufReader::new(writer.try_clone().expect("a socket can be cloned"));
        let mut qmp = Self {
            reader,
            writer,
            events: VecDeque::new(),
            child: None,
            dir: None,
            worked: BTreeSet::new(),
            came: BTreeSet::new(),
            greeting: Value::Null,
        };
        qmp.greeting = qmp.line();
        qmp
    }

    /// Folder for files of the test; it goes with the connection.
    ///
    /// # Panics
    /// For a connection that [`Qmp::connect`] made.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("made by start").path()
    }

    /// Sends text as it is.
    ///
    /// # Panics
    /// When the other end is gone.
    pub fn send(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).expect("the monitor reads");
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the other end is gone.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).expect("the monitor reads");
    }

    /// The next line, events included.
    ///
    /// # Panics
    /// When none comes in time, or it is not JSON with CR LF, or an event that is not as QEMU's schema says.
    pub fn line(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line comes in time");
        assert!(line.ends_with("\r\n"), "not a line: {line:?}");
        let v: Value = serde_json::from_str(&line).expect("JSON");
        if let Some(event) = v.get("event").and_then(Value::as_str) {
            Schema::qemu().check_event(&v).unwrap_or_else(|e| panic!("{e}"));
            self.came.insert(event.to_owned());
        }
        v
    }

    /// The next reply; events before it are kept.
    pub fn reply(&mut self) -> Value {
        loop {
            let v = self.line();
            if v.get("event").is_none() {
                return v;
            }
            self.events.push_back(v);
        }
    }

    /// Runs a command; the whole reply.
    ///
    /// # Panics
    /// When the reply is not as QEMU's schema says.
    pub fn raw(&mut self, name: &str, args: Value) -> Value {
        self.send(&json!({"execute": name, "arguments": args}).to_string());
        let reply = self.reply();
        Schema::qemu().check_reply(name, &reply).unwrap_or_else(|e| panic!("{e}"));
        if reply.get("return").is_some() {
            self.worked.insert(name.to_owned());
        }
        reply
    }

    /// Whether command `name` was run here and worked.
    pub fn worked(&self, name: &str) -> bool {
        self.worked.contains(name)
    }

    /// Whether event `name` came.
    pub fn came(&self, name: &str) -> bool {
        self.came.contains(name)
    }

    /// Runs a command that must work; what it returns.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&mut self, name: &str, args: Value) -> Value {
        let mut reply = self.raw(name, args);
        assert!(reply.get("error").is_none(), "{name}: {reply}");
        reply["return"].take()
    }

    /// Runs a command that must fail: class and description.
    ///
    /// # Panics
    /// When it works.
    pub fn error(&mut self, name: &str, args: Value) -> (String, String) {
        let reply = self.raw(name, args);
        let text = |k: &str| reply["error"][k].as_str().unwrap_or_else(|| panic!("{name}: {reply}")).to_owned();
        (text("class"), text("desc"))
    }

    /// Runs a line of the human monitor.
    ///
    /// # Panics
    /// When the reply is not text.
    pub fn hmp(&mut self, line: &str) -> String {
        self.run("human-monitor-command", json!({"command-line": line})).as_str().expect("text").to_owned()
    }

    /// Waits for event `name`; earlier other events are dropped.
    pub fn event(&mut self, name: &str) -> Value {
        loop {
            let v = self.events.pop_front().unwrap_or_else(|| self.line());
            if v["event"] == name {
                return v;
            }
        }
    }

    /// Names of the events that came so far and were not taken.
    pub fn events(&mut self) -> Vec<String> {
        self.events.drain(..).filter_map(|e| e["event"].as_str().map(str::to_owned)).collect()
    }

    /// The process.
    ///
    /// # Panics
    /// For a connection that [`Qmp::connect`] made.
    pub fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("made by start")
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        process::wait(self.child())
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
