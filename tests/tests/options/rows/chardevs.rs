//! Character devices, each kind.

use super::super::harness::*;
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use tests::process::{self, until};
use tests::qmp::Qmp;

rows! {
    chardev_null: ["-chardev", "backend=null,id=c"] |r| { assert_eq!(filename(&mut r.none(), "c"), "null"); }
    chardev_vc: ["-chardev", "vc,id=c,cols=80,rows=25", "-chardev", "vc,id=d,width=640,height=480"] |r| {
        assert_eq!(filename(&mut r.none(), "c"), "vc");
    }
    chardev_file: ["-chardev", "file,id=c,path={dir}/out,input-path={dir}/in,append=on", "-serial", "chardev:c"] |r| {
        r.put("out", "old ");
        r.put("in", "k");
        let mut q = r.pc();
        until("the byte", || q.hmp("i /b 0x3fd").ends_with("61\r\n"));
        q.hmp("o /b 0x3f8 0x41");
        until("it is appended", || std::fs::read(r.path("out")).is_ok_and(|d| d == b"old A"));
        // Without append it starts over.
        let _again = Qmp::start(&["-machine", "none", "-chardev", &format!("file,id=c,path={}", r.path("out").display())]);
        assert_eq!(std::fs::read(r.path("out")).unwrap(), b"");
    }
    chardev_log: ["-chardev", "null,id=c,logfile={dir}/log,logappend=on", "-serial", "chardev:c"] |r| {
        r.put("log", "old ");
        r.pc().hmp("o /b 0x3f8 0x41");
        until("it is logged", || std::fs::read(r.path("log")).is_ok_and(|d| d == b"old A"));
    }
    chardev_stdio: ["-chardev", "stdio,id=c,signal=off", "-mon", "chardev=c"] |r| {
        let out = process::run(&r.with(&["-machine", "none"]), "info version\nquit\n");
        assert!(out.code == Some(0) && out.stdout.contains("11.1.3Qomet"), "{out:?}");
    }
    chardev_pty: ["-chardev", "pty,id=c,path={dir}/link", "-serial", "chardev:c"] |r| {
        let mut q = r.pc();
        let device = filename(&mut q, "c").strip_prefix("pty:").expect("its name").to_owned();
        assert_eq!(std::fs::read_link(r.path("link")).unwrap(), Path::new(&device));
        let mut tty = std::fs::OpenOptions::new().read(true).write(true).open(r.path("link")).unwrap();
        tty.write_all(b"k").unwrap();
        until("the byte", || q.hmp("i /b 0x3fd").ends_with("61\r\n"));
        q.run("quit", json!({}));
        q.wait();
        assert!(!r.path("link").is_symlink());
    }
    chardev_ringbuf: ["-chardev", "ringbuf,id=c,size=8", "-chardev", "memory,id=d,size=4k"] |r| {
        let mut q = r.none();
        q.run("ringbuf-write", json!({"device": "c", "data": "0123456789"}));
        assert_eq!(q.run("ringbuf-read", json!({"device": "c", "size": 100})), "23456789");
        q.run("ringbuf-write", json!({"device": "d", "data": "x"}));
    }
    chardev_mux: ["-chardev", "socket,id=base,path={dir}/s,server=on,wait=off", "-chardev", "mux,id=c,chardev=base", "-serial", "chardev:c", "-mon", "c"] |r| {
        let mut q = r.pc();
        let mut s = connect(&r.path("s"));
        s.write_all(b"\x01c").unwrap();
        q.hmp("o /b 0x3f8 0x21");
        let mut text = read_until(&mut s, "(qemu) ");
        while !text.contains('!') {
            text += &read_until(&mut s, "!");
        }
        assert_eq!(filename(&mut q, "c"), "mux");
    }
    chardev_mux_on: ["-chardev", "socket,id=c,path={dir}/s,server=on,wait=off,mux=on", "-mon", "c", "-mon", "c"] |r| {
        let _q = r.none();
        let mut s = connect(&r.path("s"));
        s.write_all(b"\x01h").unwrap();
        read_until(&mut s, "C-a x    exit emulator");
    }
    chardev_unix_client: ["-chardev", "socket,id=c,path={dir}/s,reconnect-ms=20", "-serial", "chardev:c"] |r| {
        // Nobody listens at first: it tries again.
        let mut q = r.pc();
        let listener = UnixListener::bind(r.path("s")).unwrap();
        for _ in 0..2 {
            let (mut s, _) = listener.accept().unwrap();
            s.write_all(b"k").unwrap();
            until("the byte", || q.hmp("i /b 0x3fd").ends_with("61\r\n"));
            q.hmp("i /b 0x3f8");
        }
    }
    chardev_abstract: ["-chardev", "socket,id=c,path={dir}/s,abstract=on,server=on,wait=off"] |r| {
        use std::os::linux::net::SocketAddrExt;
        let _q = r.none();
        let name = r.path("s");
        let addr = std::os::unix::net::SocketAddr::from_abstract_name(name.to_str().unwrap()).unwrap();
        UnixStream::connect_addr(&addr).unwrap();
        assert!(!name.exists());
    }
    chardev_wait: ["-chardev", "socket,id=c,path={dir}/s,server=on,wait=on", "-mon", "c", "-S"] |r| {
        let mut child = process::start(&r.with(&["-machine", "none"]), &[]);
        process::until_exists(&r.path("s"));
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(child.try_wait().unwrap().is_none());
        let mut s = connect(&r.path("s"));
        s.write_all(b"quit\n").unwrap();
        assert_eq!(process::wait(&mut child).code(), Some(0));
        assert!(process::finish(child).stderr.contains("waiting for connection on: disconnected:unix:"));
    }
    chardev_tcp: ["-chardev", "socket,id=c,host=127.0.0.1,port=0,to=10,server=on,wait=off,nodelay=on,ipv4=on,ipv6=off", "-mon", "c"] |r| {
        let mut q = r.none();
        let address = filename(&mut q, "c");
        let port: u16 = address.trim_end_matches(",server=on").rsplit(':').next().unwrap().parse().expect(&address);
        let mut s = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        read_until(&mut s, "(qemu) ");
        // The port is taken: the next one is tried, up to `to`.
        let list = format!("socket,id=c,host=127.0.0.1,port={port},to={},server=on,wait=off,delay=off", port.saturating_add(20));
        let mut second = Qmp::start(&["-machine", "none", "-chardev", &list]);
        assert_ne!(filename(&mut second, "c"), address);
        let e = process::run(&["-machine", "none", "-chardev", "socket,id=c,host=127.0.0.1,port=0,server=on,ipv4=off"], "").stderr;
        assert!(e.contains("127.0.0.1") && e.lines().count() == 1, "{e}");
    }
    chardev_telnet: ["-chardev", "socket,id=c,host=localhost,port=0,delay=off,telnet=on,server=on,wait=off", "-mon", "c"] |r| {
        let mut q = r.none();
        let address = filename(&mut q, "c");
        let port: u16 = address.trim_end_matches(",server=on").rsplit(':').next().unwrap().parse().expect(&address);
        let mut s = std::net::TcpStream::connect(("localhost", port)).unwrap();
        let mut first = [0; 3];
        s.read_exact(&mut first).unwrap();
        assert_eq!(first[0], 255, "IAC");
    }
    chardev_fd: ["-chardev", "socket,id=c,fd=9,server=off", "-mon", "c"] |r| {
        // Descriptor 9 is one end of a socket pair.
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut child = std::process::Command::new("bash")
            .args(["-c", "exec \"$@\" 9<&0 0</dev/null", "sh", process::binary().to_str().unwrap()])
            .args(r.with(&["-machine", "none", "-nodefaults"]))
            .stdin(std::os::fd::OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        ours.write_all(b"quit\n").unwrap();
        read_until(&mut ours, "quit");
        assert_eq!(process::wait(&mut child).code(), Some(0));
    }
}
