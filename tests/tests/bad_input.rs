//! Bad input, sentence by sentence: the real binary, one line of error with what would do, status 1, nothing half-started.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use tests::packages;
use tests::process::{self, Output, binary, run, until};
use tests::qmp::Qmp;

/// `-L` with SeaBIOS.
fn firmware() -> String {
    let bios = packages::seabios().expect("SeaBIOS can be fetched");
    let folder = if bios.is_dir() { bios.as_path() } else { bios.parent().expect("a folder") };
    folder.to_str().expect("a plain path").to_owned()
}

/// The default machine without a guest that runs: `args` on top.
fn pc(args: &[&str]) -> Output {
    let folder = firmware();
    run(&[&["-accel", "qtest", "-L", &folder], args].concat(), "")
}

fn one_line(out: &Output) -> &str {
    assert_eq!((out.code, out.stdout.as_str()), (Some(1), ""), "{out:?}");
    assert_eq!(out.stderr.lines().count(), 1, "{out:?}");
    out.stderr.trim_end()
}

#[test]
fn unknown_names_come_with_what_and_the_nearest() {
    for (args, what, near) in [
        (&["-mahcine", "pc"][..], "-mahcine", "-machine"),
        (&["-machine", "pcc"], "pcc", "'pc'"),
        (&["-machine", "pc,vmprot=on"], "vmprot", "'vmport'"),
        (&["-cpu", "qemu46"], "qemu46", "'qemu64'"),
        (&["-cpu", "qemu64,+sse33"], "sse33", "sse3"),
        (&["-cpu", "qemu64,modell=3"], "modell", "'model'"),
        (&["-device", "isa-debug-exti"], "isa-debug-exti", "'isa-debug-exit'"),
        (&["-device", "isa-debug-exit,ioabse=1"], "ioabse", "'iobase'"),
        (&["-object", "memory-backend-rma,id=x"], "memory-backend-rma", "'memory-backend-ram'"),
        (&["-object", "memory-backend-ram,id=x,szie=1"], "szie", "'size'"),
        (&["-chardev", "sokcet,id=x"], "sokcet", "'socket'"),
        (&["-chardev", "socket,id=x,paht=y"], "paht", "'path'"),
        (&["-serial", "stdoi"], "stdoi", "'stdio'"),
        (&["-boot", "oder=c"], "oder", "'order'"),
        (&["-smp", "coers=2"], "coers", "'cores'"),
        (&["-d", "guest_erors"], "guest_erors", "'guest_errors'"),
    ] {
        let out = pc(args);
        let line = one_line(&out);
        assert!(line.contains(what) && line.contains(near), "{args:?}: {line}");
    }
    for (accel, what, near) in [("tgc", "tgc", "tcg"), ("tcg,thraed=single", "thraed", "'thread'")] {
        let out = run(&["-machine", "none", "-accel", accel], "");
        let line = one_line(&out);
        assert!(line.contains(what) && line.contains(near), "{line}");
    }
}

#[test]
fn wrong_values_come_with_what_would_be_accepted() {
    for (args, accepted) in [
        (&["-machine", "pc,vmport=maybe"][..], "on, off, auto"),
        (&["-machine", "pc,graphics=2"], "'on' or 'off'"),
        (&["-m", "12x"], "suffix k, M, G"),
        (&["-smp", "many"], "a number"),
        (&["-rtc", "clock=sun"], "host, rt, vm"),
        (&["-rtc", "base=soon"], "utc, localtime"),
        (&["-action", "panic=run"], "pause, shutdown, exit-failure, none"),
        (&["-watchdog-action", "bark"], "reset, shutdown, poweroff"),
        (&["-mon", "x,mode=chat"], "readline, control"),
        (&["-uuid", "7"], "8-4-4-4-12"),
        (&["-vga", "cga"], "std or none"),
        (&["-display", "gtk"], "none"),
        (&["-echr", "400"], "0 to 255"),
        (&["-device", "isa-debug-exit,iobase=x"], "uint32"),
        (&["-device", "VGA,addr=99"], "addr"),
        (&["-object", "memory-backend-ram,id=x,size=lots"], "suffix"),
        (&["-boot", "order=z"], "'z'"),
        (&["-boot", "reboot-timeout=70000"], "-1 and 65535"),
        (&["-fw_cfg", "opt/x"], "exactly one of file and string"),
        (&["-cpu", "qemu64,sse3=2"], "on"),
        (&["-cpu", "qemu64,family=x"], "family"),
        (&["-icount", "shift=11"], "icount: Invalid shift value"),
        (&["-d", "int,pcall"], "'pcall' of QEMU is not built yet"),
        (&["-chardev", "socket,id=x,path=y,websocket=on"], "'websocket' of QEMU is not built yet"),
    ] {
        let out = pc(args);
        let line = one_line(&out);
        assert!(line.contains(accepted), "{args:?}: {line}");
    }
    let out = run(&["-machine", "none", "-accel", "tcg,thread=triple"], "");
    let line = one_line(&out);
    assert!(line.contains("single") && line.contains("multi"), "{line}");
}

#[test]
fn accelerators_are_passed_over_and_kvm_alone_is_an_error_with_a_way_out() {
    let quit = "{'execute':'qmp_capabilities'}{'execute':'query-accelerators'}{'execute':'quit'}";
    for list in [&["-machine", "none,accel=kvm:tcg"][..], &["-machine", "none", "-accel", "kvm", "-accel", "tcg"]] {
        let out = run(&[list, &["-qmp", "stdio"]].concat(), quit);
        assert_eq!(out.code, Some(0), "{out:?}");
        assert!(out.stdout.contains("\"enabled\": \"tcg\"") && out.stderr.contains("falling back to tcg"), "{out:?}");
    }
    assert!(run(&["-machine", "none,accel=kvm:xen"], "").stderr.ends_with("qomet: no accelerator found\n"));
    for args in [&["-accel", "kvm"][..], &["-enable-kvm"], &["-machine", "pc,accel=kvm"]] {
        let out = run(&[args, &["-L", &firmware()]].concat(), "");
        let line = one_line(&out);
        assert!(line.contains("use tcg") && line.contains("-cpu max"), "{line}");
    }
    let out = run(&["-cpu", "host", "-L", &firmware()], "");
    assert!(one_line(&out).contains("max"), "{out:?}");
}

#[test]
fn globals_that_fit_nothing_only_warn() {
    for (global, text) in [
        ("virtio-gpu-pci.xres=1", "virtio-gpu-pci.xres has invalid class name"),
        ("isa-debug-exit.iobase=3", "isa-debug-exit.iobase=3 not used"),
    ] {
        let quit = "{'execute':'qmp_capabilities'}{'execute':'quit'}";
        let out = run(&["-machine", "none", "-global", global, "-qmp", "stdio"], quit);
        assert_eq!(out.code, Some(0));
        assert!(out.stderr.contains("warning: ") && out.stderr.contains(text), "{}", out.stderr);
    }
    // Of a device that is there, a wrong property or value is an error.
    assert!(one_line(&pc(&["-global", "isa-debug-exit.iobase=x", "-device", "isa-debug-exit"])).contains("iobase"));
}

#[test]
fn ids_are_taken_once() {
    for args in [
        &["-chardev", "null,id=a", "-chardev", "null,id=a"][..],
        &["-object", "memory-backend-ram,id=a,size=4k", "-object", "memory-backend-ram,id=a,size=4k"],
        &["-device", "isa-debug-exit,id=a", "-device", "isa-debug-exit,id=a,iobase=0x600"],
    ] {
        let out = pc(args);
        let line = one_line(&out).to_lowercase();
        assert!(line.contains("duplicate") && line.contains('a'), "{line}");
    }
}

/// A start of a bzImage whose header promises more than there is.
fn truncated_kernel() -> Vec<u8> {
    let mut k = vec![0; 1024];
    k[0x1f1] = 40; // setup sectors that are not there
    k[0x1fe..0x200].copy_from_slice(&0xaa55u16.to_le_bytes());
    k[0x202..0x206].copy_from_slice(b"HdrS");
    k[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    k
}

#[test]
fn files_that_are_missing_truncated_or_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let sparse = |name: &str, size: u64| {
        std::fs::File::create(at(name)).unwrap().set_len(size).unwrap();
        at(name)
    };
    std::fs::write(at("truncated"), truncated_kernel()).unwrap();
    std::fs::write(at("empty"), "").unwrap();
    std::fs::write(at("odd"), vec![0; 1000]).unwrap();
    std::fs::write(at("text"), "no kernel").unwrap();
    let (kernel, big) = (packages::kernel().expect("a kernel"), sparse("big", 5 << 30));
    let kernel = kernel.to_str().unwrap();
    let (nowhere, truncated, empty, odd, text) =
        ("/nowhere/x".to_owned(), at("truncated"), at("empty"), at("odd"), at("text"));
    for (args, named) in [
        (&["-kernel", nowhere.as_str()][..], "/nowhere/x"),
        (&["-kernel", &truncated], "truncated"),
        (&["-kernel", &empty], "empty"),
        (&["-kernel", &text], "text"),
        (&["-kernel", &big], "big"),
        (&["-kernel", dir.path().to_str().unwrap()], dir.path().to_str().unwrap()),
        (&["-kernel", kernel, "-initrd", "/nowhere/x"], "/nowhere/x"),
        (&["-kernel", kernel, "-initrd", &big], "big"),
        (&["-bios", "/nowhere/x"], "/nowhere/x"),
        (&["-bios", "nowhere.bin"], "seabios"),
        (&["-bios", &odd], "odd"),
        (&["-bios", &empty], "empty"),
        (&["-bios", &big], "big"),
        (&["-device", "VGA,romfile=/nowhere/x", "-vga", "none"], "/nowhere/x"),
        (&["-fw_cfg", "opt/x,file=/nowhere/x"], "/nowhere/x"),
    ] {
        let out = pc(args);
        let line = one_line(&out);
        assert!(line.contains(named), "{args:?}: {line}");
    }
    // A ROM larger than any BAR.
    let rom = format!("VGA,romfile={big}");
    assert!(one_line(&pc(&["-vga", "none", "-device", &rom])).contains("big"));
    // No firmware at all: the package is named.
    let out = run(&["-accel", "qtest", "-bios", "no-such-firmware.bin"], "");
    assert!(one_line(&out).contains("'seabios'"), "{out:?}");
}

#[test]
fn kernels_from_inherited_descriptors_and_fifos() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let kernel = packages::kernel().expect("a kernel");
    let folder = firmware();
    let quit = "{'execute':'qmp_capabilities'}{'execute':'quit'}";
    let script = "exec \"$0\" -accel qtest -display none -nic none -L \"$1\" -qmp stdio -kernel /proc/self/fd/9 -initrd /proc/self/fd/8 9<\"$2\" 8<\"$2\"";
    let start = |script: &str, extra: &Path| {
        let mut command = Command::new("bash");
        command.args(["-c", script]).arg(binary()).arg(&folder).arg(extra);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(quit.as_bytes()).unwrap();
        child
    };
    let out = process::finish(start(script, &kernel));
    assert_eq!((out.code, out.stderr.as_str()), (Some(0), ""), "{out:?}");
    let script = "exec \"$0\" -accel qtest -display none -nic none -L \"$1\" -qmp stdio -kernel \"$2\"";
    let child = start(script, &fifo);
    let mut writer = std::fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    writer.write_all(&std::fs::read(&kernel).unwrap()).unwrap();
    drop(writer);
    let out = process::finish(child);
    assert_eq!((out.code, out.stderr.as_str()), (Some(0), ""), "{out:?}");
}

#[test]
fn memory_and_processors_beyond_what_there_can_be() {
    for (args, text) in [
        (&["-m", "8000000T"][..], "cannot set up guest memory"),
        (&["-m", "99999999999G"], "Parameter 'size'"),
        (&["-m", "64M,maxmem=32M"], "maxmem"),
        (&["-m", "64M,slots=2"], "slots"),
        (&["-m", "64M,slots=300,maxmem=1G"], "256"),
        (&["-smp", "0"], "greater than zero"),
        (&["-smp", "4000"], "255"),
        (&["-smp", "3,maxcpus=2"], "maxcpus"),
        (&["-smp", "4,sockets=2,cores=1,threads=1"], "must match maxcpus"),
        (&["-smp", "2,clusters=2"], "clusters"),
        (&["-smp", "99999999999999999999"], "number"),
    ] {
        let out = pc(args);
        let line = one_line(&out);
        assert!(line.contains(text), "{args:?}: {line}");
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).unwrap()); // its file stays
    let monitor = format!("unix:{},server=on,wait=off", path.display());
    let mut q = Qmp::start(&["-machine", "none", "-qmp", &monitor]);
    Qmp::connect(&path).run("qmp_capabilities", json!({}));
    q.run("quit", json!({}));
    q.wait();
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    let out = run(&["-machine", "none", "-qmp", &monitor], "");
    assert!(one_line(&out).contains("Address already in use"), "{out:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn nothing_is_left_of_a_start_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (socket, pid, link) = (at("s"), at("pid"), at("pty"));
    let monitor = format!("unix:{socket},server=on,wait=off");
    let pty = format!("pty,id=p,path={link}");
    for end in [&["-device", "nope"][..], &["-m", "8000000T"], &["-kernel", "/nowhere/x"], &["-bios", "/nowhere/x"]] {
        let args = [&["-qmp", &monitor, "-chardev", &pty, "-pidfile", &pid], end].concat();
        for daemonize in [false, true] {
            let out =
                pc(&[&args[..], if daemonize { &["-daemonize", "-display", "none", "-monitor", "none"] } else { &[] }]
                    .concat());
            assert_eq!(out.code, Some(1), "{end:?}: {out:?}");
            let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert!(left.is_empty(), "{end:?}: {left:?}");
        }
    }
}

#[test]
fn a_full_disk_under_a_port_and_a_closed_output_stop_nothing() {
    let folder = firmware();
    let mut q =
        Qmp::start(&["-accel", "qtest", "-L", &folder, "-serial", "file:/dev/full", "-debugcon", "file:/dev/full"]);
    for _ in 0..50 {
        q.hmp("o /b 0x3f8 0x41");
        q.hmp("o /b 0xe9 0x41");
    }
    // The transmitter is empty again each time.
    until("the transmitter", || q.hmp("i /b 0x3fd").ends_with("60\r\n"));
    q.run("quit", json!({}));
    assert_eq!(q.wait().code(), Some(0));
    // A reader of standard output that is gone, with a guest that writes.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let monitor = format!("unix:{},server=on,wait=off", path.display());
    let args = ["-accel", "qtest", "-L", &folder, "-display", "none", "-serial", "stdio", "-qmp", &monitor];
    let mut child = Command::new(binary()).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut q = Qmp::connect(&path);
    q.run("qmp_capabilities", json!({}));
    drop(child.stdout.take());
    for _ in 0..50 {
        q.hmp("o /b 0x3f8 0x41");
    }
    until("the transmitter", || q.hmp("i /b 0x3fd").ends_with("60\r\n"));
    q.run("quit", json!({}));
    assert_eq!(process::wait(&mut child).code(), Some(0));
    // A list whose reader is gone is no error either.
    let status = Command::new("sh")
        .args(["-c", "\"$0\" -device help | head -n 1 >/dev/null; exit 0"])
        .arg(binary())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&status.stderr), "");
}

#[test]
fn every_register_access_of_any_width_and_alignment_is_survived() {
    // All ports, all widths: what matters is that the machine still answers.
    let folder = firmware();
    let mut q = tests::qtest::Qtest::start(&["-L", &folder, "-no-reboot", "-no-shutdown"]);
    for port in (0..=0xfffu16).chain(0xaf00..0xaf20).chain(0xfff0..=0xffff) {
        // Resets and power-off are tested elsewhere.
        if matches!(port, 0x61..=0x64 | 0x92 | 0xcf8..=0xcfc | 0x604) {
            continue;
        }
        for size in [1, 2, 4] {
            q.inp(port, size);
            q.out(port, size, 0xa5a5_a5a5);
        }
    }
    assert_eq!(q.ok("endianness"), "little");
}

#[test]
fn malformed_qmp_gets_an_error_and_the_connection_stays() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    let deep = "[".repeat(100_000) + "\n";
    let wide = format!(
        "{{\"execute\":\"qom-get\",\"arguments\":{{\"path\":\"/{}\",\"property\":\"x\"}}}}",
        "a".repeat(1 << 20)
    );
    let numbers = "{'execute':'ringbuf-read','arguments':{'device':'x','size':1e400}}";
    for (bad, class) in [
        (deep.as_str(), "GenericError"),
        (&wide, "DeviceNotFound"),
        (numbers, "GenericError"),
        ("{'execute':'stop','id':}", "GenericError"),
        ("{'execute':'stop' 'id':1}", "GenericError"),
        ("{'execute':'qom-get','arguments':[]}", "GenericError"),
        ("{'execute':'human-monitor-command','arguments':{'command-line':'x','cpu-index':-1}}", "GenericError"),
        (
            "{'execute':'pmemsave','arguments':{'val':0,'size':9223372036854775808,'filename':'/nowhere/x'}}",
            "GenericError",
        ),
        ("{'execute':''}", "CommandNotFound"),
        ("truely\n", "GenericError"),
    ] {
        q.send(bad);
        let reply = q.reply();
        assert_eq!(reply["error"]["class"], class, "{:.60}: {reply:.200}", bad);
        // What is left of the broken input ends with its line.
        q.send("\n{'execute':'query-name','id':'sync'}");
        while q.reply()["id"] != "sync" {}
    }
    // Bytes that are no UTF-8, in and outside of a string.
    for bytes in [&b"{'execute':'\xff\xfe'}\n"[..], b"\xc3\x28\n", b"{\"execute\":\"stop\",\"id\":\"\xed\xa0\x80\"}\n"]
    {
        q.send_bytes(bytes);
        let reply = q.reply();
        assert!(reply.get("error").is_some(), "{reply}");
        q.send("\n{'execute':'query-name','id':'sync'}");
        while q.reply()["id"] != "sync" {}
    }
}

#[test]
fn many_connections_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let monitor = format!("unix:{},server=on,wait=off", path.display());
    let mut first = Qmp::start(&["-machine", "none", "-S", "-qmp", &monitor]);
    for i in 0..50 {
        let mut s = std::os::unix::net::UnixStream::connect(&path).unwrap();
        // Some leave in the middle of a request, some without reading the greeting.
        if i % 3 == 0 {
            let mut byte = [0; 1];
            s.read_exact(&mut byte).unwrap();
        }
        if i % 2 == 0 {
            let _ = s.write_all(b"{'execute':'qmp_capab");
        }
    }
    let mut q = Qmp::connect(&path);
    q.run("qmp_capabilities", json!({}));
    assert_eq!(q.run("query-status", json!({}))["status"], "prelaunch");
    // One that never reads: the others are served.
    drop(q);
    let mut deaf = std::os::unix::net::UnixStream::connect(&path).unwrap();
    deaf.set_nonblocking(true).unwrap();
    let _ = deaf.write_all(b"{'execute':'qmp_capabilities'}");
    let ask = b"{'execute':'query-qmp-schema'}".repeat(500);
    let _ = deaf.write_all(&ask);
    assert_eq!(first.run("query-status", json!({}))["status"], Value::from("prelaunch"));
    first.run("quit", json!({}));
    assert_eq!(first.wait().code(), Some(0));
}

/// How requests reach the host: what is not there is an error, never another way.
#[test]
fn ways_to_the_host_that_are_not_there_are_errors() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let run = |more: &str| {
        let drive = format!("file={},if=none,format=raw,{more}", file.path().display());
        tests::process::run(&["-machine", "none", "-accel", "qtest", "-display", "none", "-drive", &drive], "").stderr
    };
    let buffered = run("aio=native");
    assert!(buffered.contains("aio=native was specified, but it requires cache.direct=on, which was not specified."));
    assert!(run("aio=native,cache=none").contains("aio=native is not built yet (accepted: threads, io_uring)"));
    assert!(run("aio=posix").contains("does not accept value 'posix' (accepted: threads, native, io_uring)"));
}

/// Has the kernel refuse io_uring_setup(2) to this thread and the processes that it starts.
fn refuse_io_uring() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    // Its number on every architecture.
    const IO_URING_SETUP: i64 = 425;
    let refused = SeccompAction::Errno(rustix::io::Errno::PERM.raw_os_error() as u32);
    let arch = std::env::consts::ARCH.try_into().expect("an architecture with filters");
    let filter = SeccompFilter::new([(IO_URING_SETUP, vec![])].into(), SeccompAction::Allow, refused, arch);
    let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter");
    seccompiler::apply_filter(&program).expect("the kernel takes it");
}

#[test]
fn a_host_that_refuses_io_uring_is_an_error_and_nothing_else() {
    const REFUSED: &str = "aio=io_uring was specified, but is not available (disabled via io_uring_disabled sysctl or blocked \
                           by container runtime seccomp policy?)";
    tests::process::binary(); // built by a thread without the filter
    let refused = || {
        refuse_io_uring();
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), [7; 4096]).expect("written");
        let name = file.path().to_str().expect("a plain path");
        let drive = format!("file={name},if=none,format=raw,aio=io_uring");
        let out =
            tests::process::run(&["-machine", "none", "-accel", "qtest", "-display", "none", "-drive", &drive], "");
        assert_eq!((out.code, out.stdout.as_str()), (Some(1), ""), "{out:?}");
        assert!(
            out.stderr.ends_with(&format!(": -drive {drive}: {REFUSED}\n")) && out.stderr.lines().count() == 1,
            "{out:?}"
        );
        // A running machine stays as it is, and has the image by the other way.
        let mut q = Qmp::start(&["-machine", "none", "-accel", "qtest", "-display", "none"]);
        let node = |aio: &str| json!({"driver": "file", "node-name": "f", "filename": name, "aio": aio});
        assert_eq!(q.error("blockdev-add", node("io_uring")), ("GenericError".into(), REFUSED.into()));
        assert_eq!(q.run("query-named-block-nodes", json!({})), json!([]));
        q.run("blockdev-add", node("threads"));
        q.run("quit", json!({}));
        assert_eq!(q.wait().code(), Some(0));
    };
    std::thread::spawn(refused).join().expect("it holds");
}
