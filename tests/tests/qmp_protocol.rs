//! QMP itself, through real sockets and pipes: greeting, negotiation, framing, errors, events.

use serde_json::{Value, json};
use tests::process;
use tests::qmp::Qmp;

const EMPTY: [&str; 4] = ["-machine", "none", "-S", "-nodefaults"];

#[test]
fn requests_piped_in_at_once_are_answered_in_order_and_quit_ends_the_process() {
    let input = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-kvm\"}\n{\"execute\":\"quit\"}\n";
    let out = process::run(&["-display", "none", "-machine", "none,accel=kvm:hvf:tcg", "-qmp", "stdio", "-S"], input);
    let lines: Vec<Value> = out.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["QMP"]["version"]["qemu"], json!({"major": 11, "minor": 1, "micro": 3}));
    assert_eq!(lines[1], json!({"return": {}}));
    assert_eq!(lines[2], json!({"return": {"enabled": false, "present": false}}));
    assert_eq!(lines[3], json!({"return": {}}));
    assert_eq!((lines[4]["event"].as_str(), &lines[4]["data"]["reason"]), (Some("SHUTDOWN"), &json!("host-qmp-quit")));
    assert_eq!(out.code, Some(0));
    assert!(out.stderr.contains("invalid accelerator hvf"));
}

#[test]
fn nothing_works_before_the_negotiation_and_it_happens_once() {
    let mut q = Qmp::start(&EMPTY);
    let mut second = Qmp::start(&EMPTY);
    assert_eq!(q.greeting["QMP"]["capabilities"], json!(["oob"]));
    let (class, text) = q.error("qmp_capabilities", json!({}));
    assert_eq!((class.as_str(), text.contains("already complete")), ("CommandNotFound", true));
    assert_eq!(second.run("query-name", json!({})), json!({}));
}

#[test]
fn a_new_connection_starts_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q");
    let monitor = format!("unix:{},server=on,wait=off", path.display());
    let mut child = process::start(&[&EMPTY[..], &["-qmp", &monitor]].concat(), &[]);
    process::until_exists(&path);
    for enable in [json!({}), json!({"enable": ["oob"]})] {
        let mut q = Qmp::connect(&path);
        let (class, text) = q.error("query-status", json!({}));
        assert_eq!(
            (class.as_str(), text.as_str()),
            ("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'")
        );
        q.run("qmp_capabilities", enable.clone());
        q.run("query-status", json!({}));
        q.send("{'exec-oob': 'query-status'}");
        let text = q.reply()["error"]["desc"].as_str().unwrap().to_owned();
        let expected = if enable == json!({}) {
            "QMP input member 'exec-oob' is unexpected"
        } else {
            "The command query-status does not support OOB"
        };
        assert_eq!(text, expected);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn ids_come_back_single_quotes_work_and_no_line_end_is_needed() {
    let mut q = Qmp::start(&EMPTY);
    q.send("{'execute':'query-status','id':{'a':[1,'x']}}{\"execute\":\"query-name\"}");
    assert_eq!(q.reply(), json!({"return": {"running": false, "status": "prelaunch"}, "id": {"a": [1, "x"]}}));
    assert_eq!(q.reply(), json!({"return": {}}));
    q.send("{'execute':'nope','id':'n'}");
    let reply = q.reply();
    assert_eq!((&reply["id"], &reply["error"]["class"]), (&json!("n"), &json!("CommandNotFound")));
}

#[test]
fn malformed_input_gets_an_error_and_the_connection_stays() {
    let mut q = Qmp::start(&EMPTY);
    let nested = format!("{}\n", "[".repeat(2000));
    for (bad, text) in [
        ("@\n", "JSON parse error, stray '@'"),
        ("{'execute': }", "JSON parse error, expecting value"),
        ("[]", "QMP input must be a JSON object"),
        ("{'execute': 1}", "QMP input member 'execute' must be a string"),
        ("{'exec': 'x'}", "QMP input member 'exec' is unexpected"),
        ("{}", "QMP input lacks member 'execute'"),
        ("{'execute':'qom-get','arguments':{'path':'/'}}", "Parameter 'property' is missing"),
        (
            "{'execute':'qom-get','arguments':{'path':'/','property':1}}",
            "Invalid parameter type for 'property', expected: string",
        ),
        ("{'execute':'stop','arguments':{'x':1}}", "Parameter 'x' is unexpected"),
        (nested.as_str(), "JSON nesting depth limit exceeded"),
        ("\"\u{7}\"\n", "JSON parse error, stray '\"\u{7}'"),
    ] {
        q.send(bad);
        let reply = q.reply();
        assert_eq!(
            (reply["error"]["class"].as_str(), reply["error"]["desc"].as_str()),
            (Some("GenericError"), Some(text)),
            "{bad}"
        );
        // The stray string leaves a quote behind on some inputs: a line end resets the reader.
        q.send("\n");
        if bad.starts_with('"') {
            q.send("\n");
            q.reply();
        }
    }
    q.run("query-status", json!({}));
}

#[test]
fn two_monitors_both_see_events() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("second");
    let monitor = format!("socket,id=m,path={},server=on,wait=off", path.display());
    let mut first = Qmp::start(&[&EMPTY[..], &["-chardev", &monitor, "-mon", "chardev=m,mode=control"]].concat());
    let mut second = Qmp::connect(&path);
    second.run("qmp_capabilities", json!({}));
    first.run("cont", json!({}));
    assert_eq!(second.event("RESUME").get("data"), None);
    assert!(second.raw("query-status", json!({}))["return"]["running"].as_bool().unwrap());
    second.run("stop", json!({}));
    let event = first.event("STOP");
    assert!(event["timestamp"]["seconds"].as_u64().unwrap() > 1_700_000_000);
    assert!(event["timestamp"]["microseconds"].as_u64().unwrap() < 1_000_000);
}

#[test]
fn pretty_output_is_still_json() {
    let out = process::run(
        &["-machine", "none", "-S", "-qmp-pretty", "stdio"],
        "{'execute':'qmp_capabilities'}{'execute':'quit'}",
    );
    assert!(out.stdout.contains("{\r\n    \"return\": {}\r\n}"), "{}", out.stdout);
    assert_eq!(out.code, Some(0));
}

#[test]
fn the_schema_describes_every_command_and_event() {
    let mut q = Qmp::start(&EMPTY);
    let schema = q.run("query-qmp-schema", json!({}));
    let commands = q.run("query-commands", json!({}));
    let named = |meta: &str| -> Vec<String> {
        let all = schema.as_array().unwrap().iter();
        all.filter(|e| e["meta-type"] == meta).map(|e| e["name"].as_str().unwrap().to_owned()).collect()
    };
    let mut listed: Vec<String> =
        commands.as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect();
    let mut described = named("command");
    listed.sort();
    described.sort();
    assert_eq!(listed, described);
    for name in ["STOP", "RESUME", "SHUTDOWN", "RESET", "POWERDOWN", "SUSPEND", "WAKEUP", "DEVICE_DELETED"] {
        assert!(named("event").iter().any(|e| e == name), "{name}");
    }
}
