//! Run state through QMP: stop, cont, reset, powerdown, quit, actions; signals.

use serde_json::json;
use tests::qmp::Qmp;

fn status(q: &mut Qmp) -> String {
    q.run("query-status", json!({}))["status"].as_str().unwrap().to_owned()
}

#[test]
fn stop_and_cont_send_their_event_before_the_reply() {
    let mut q = Qmp::start(&["-machine", "none", "-S"]);
    assert_eq!(status(&mut q), "prelaunch");
    q.run("cont", json!({}));
    assert_eq!(q.events(), ["RESUME"]);
    assert_eq!(status(&mut q), "running");
    q.run("stop", json!({}));
    assert_eq!(q.events(), ["STOP"]);
    assert_eq!(status(&mut q), "paused");
    q.run("stop", json!({}));
    assert!(q.events().is_empty());
}

#[test]
fn reset_and_powerdown_are_reported() {
    let mut q = Qmp::start(&["-machine", "none"]);
    q.run("system_reset", json!({}));
    assert_eq!(q.event("RESET")["data"], json!({"guest": false, "reason": "host-qmp-system-reset"}));
    q.run("system_powerdown", json!({}));
    q.event("POWERDOWN");
    assert_eq!(status(&mut q), "running");
    let (_, text) = q.error("system_wakeup", json!({}));
    assert_eq!(text, "Unable to wake up: guest is not in suspended state");
}

#[test]
fn no_reboot_turns_a_reset_into_the_end_and_no_shutdown_the_end_into_a_stop() {
    let mut q = Qmp::start(&["-machine", "none", "-no-reboot", "-no-shutdown"]);
    q.run("system_reset", json!({}));
    assert_eq!(q.event("SHUTDOWN")["data"]["reason"], "host-qmp-system-reset");
    q.event("STOP");
    assert_eq!(status(&mut q), "shutdown");
    let (_, text) = q.error("cont", json!({}));
    assert_eq!(text, "Resetting the Virtual Machine is required");
    q.run("set-action", json!({"reboot": "reset"}));
    q.run("system_reset", json!({}));
    q.event("RESET");
    q.run("cont", json!({}));
    q.run("quit", json!({}));
    assert_eq!(q.wait().code(), Some(0));
}

#[test]
fn actions_are_checked() {
    let mut q = Qmp::start(&["-machine", "none", "-S", "-action", "reboot=shutdown,panic=pause"]);
    let (_, text) = q.error("set-action", json!({"panic": "maybe"}));
    assert!(text.starts_with("Parameter 'panic' does not accept value 'maybe'"), "{text}");
    q.run("watchdog-set-action", json!({"action": "none"}));
    q.run("system_reset", json!({}));
    assert_eq!(q.event("SHUTDOWN")["data"]["guest"], false);
    assert_eq!(q.wait().code(), Some(0));
}

#[test]
fn signals_end_the_machine_in_order_with_status_0() {
    for signal in ["TERM", "INT", "HUP"] {
        let mut q = Qmp::start(&["-machine", "none", "-no-shutdown"]);
        let pid = q.child().id().to_string();
        assert!(std::process::Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        assert_eq!(q.event("SHUTDOWN")["data"], json!({"guest": false, "reason": "host-signal"}));
        assert_eq!(q.wait().code(), Some(0), "{signal}");
    }
}

#[test]
fn name_and_uuid() {
    let uuid = "550e8400-e29b-41d4-a716-446655440000";
    let mut q = Qmp::start(&["-machine", "none", "-name", "guest=vm,debug-threads=on", "-uuid", uuid]);
    assert_eq!(q.run("query-name", json!({})), json!({"name": "vm"}));
    assert_eq!(q.run("query-uuid", json!({})), json!({"UUID": uuid}));
    assert_eq!((q.hmp("info name"), q.hmp("info uuid")), ("vm\r\n".into(), format!("{uuid}\r\n")));
}

/// A guest that counts in its video memory: `inc dword [0]; jmp`, from the reset vector on.
fn counter(dir: &std::path::Path) -> String {
    let mut rom = vec![0x90; 0x10000];
    // At FFFF0h: `inc word [1000h]`, back.
    rom[0xfff0..0xfff6].copy_from_slice(&[0xff, 0x06, 0x00, 0x10, 0xeb, 0xfa]);
    let path = dir.join("counter");
    std::fs::write(&path, rom).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn no_instruction_runs_under_dash_s_whatever_looks_at_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let bios = counter(dir.path());
    let mut q = Qmp::start(&["-machine", "pc", "-nodefaults", "-bios", &bios, "-S", "-m", "16"]);
    for _ in 0..3 {
        assert!(q.hmp("info registers").contains("EIP=0000fff0"));
        q.run("system_reset", json!({}));
        assert_eq!(q.hmp("xp /1xh 0x1000"), "0000000000001000: 0x0000\r\n");
    }
    q.run("cont", json!({}));
    tests::process::until("the guest counts", || q.hmp("xp /1xh 0x1000") != "0000000000001000: 0x0000\r\n");
    // And none after stop.
    q.run("stop", json!({}));
    let count = q.hmp("xp /1xh 0x1000");
    q.hmp("info registers");
    assert_eq!(q.hmp("xp /1xh 0x1000"), count);
}
