//! Machine, processors, memory, accelerator.

use super::super::harness::*;
use serde_json::json;
use tests::process;

rows! {
    machine: ["-machine", "type=pc,memory-backend=ram0,kernel={dir}/k,initrd={dir}/i,append=a b,firmware={dir}/b", "-object", "memory-backend-ram,id=ram0,size=32M"] |r| {
        fake_kernel(r);
        r.put("b", vec![0x90; 65536]);
        let mut q = r.pc();
        assert_eq!(get(&mut q, "/machine", "append"), "a b");
        assert_eq!(get(&mut q, "/machine", "memory-backend"), "/objects/ram0");
        assert_eq!(q.hmp("xp /1xb 0xfffffff0"), "00000000fffffff0: 0x90\r\n");
    }
    machine_values: ["-machine", "pc,max-ram-below-4g=1G,max-fw-size=4M,x-oem-id=ABC,x-oem-table-id=TAB,phandle-start=5,dt-compatible=x,dtb=/x,smbios-entry-point-type=32,bus-lock-ratelimit=7,x-south-bridge=PIIX3,boot.order=d,memory.size=64M,smp.cpus=2"] |r| {
        let mut q = r.pc();
        for (key, value) in [
            ("max-ram-below-4g", json!(1 << 30)),
            ("max-fw-size", json!(4 << 20)),
            ("x-oem-id", json!("ABC")),
            ("x-oem-table-id", json!("TAB")),
            ("phandle-start", json!(5)),
            ("dt-compatible", json!("x")),
            ("dtb", json!("/x")),
            ("smbios-entry-point-type", json!("32")),
            ("bus-lock-ratelimit", json!(7)),
            ("x-south-bridge", json!("PIIX3")),
        ] {
            assert_eq!(get(&mut q, "/machine", key), value, "{key}");
        }
        assert_eq!(get(&mut q, "/machine", "boot")["order"], "d");
        assert_eq!(get(&mut q, "/machine", "memory")["size"], 64 << 20);
        assert_eq!(get(&mut q, "/machine", "smp")["cpus"], 2);
    }
    machine_not_built: ["-machine", "pc,shim=/x,dumpdtb=/x,memory-encryption=x"] |r| {
        for key in ["shim", "dumpdtb", "memory-encryption"] {
            let e = process::run(&["-machine", &format!("pc,{key}=x")], "").stderr;
            assert!(e.contains(&format!("'{key}' is not built yet")), "{e}");
        }
        r.error();
    }
    machine_absent: ["-machine", "pc,cxl-fmw=x,nvdimm-persistence=x,sgx-epc=x,pcspk-audiodev=x"] |_r| {
        for (value, why) in [
            ("cxl-fmw.0.size=4G", "CXL memory is not supported"),
            ("nvdimm-persistence=cpu", "NVDIMMs are not supported"),
            ("sgx-epc.0.memdev=x", "SGX is not supported"),
            ("pcspk-audiodev=x", "audiodev 'x' not found"),
        ] {
            let out = process::run(&["-machine", &format!("pc,{value}")], "");
            assert!(out.code == Some(1) && out.stderr.contains(why), "{value}: {}", out.stderr);
        }
    }
    machine_cache: ["-machine", "pc,smp-cache.0.cache=l2,smp-cache.0.topology=socket,smp-cache.1.cache=l3,smp-cache.1.topology=socket"] |r| {
        let caches = get(&mut r.pc(), "/machine", "smp-cache");
        assert_eq!([0, 1, 2, 3].map(|i| caches[i]["topology"].clone()), ["core", "core", "socket", "socket"]);
        for (value, why) in [
            ("0.cache=l1d,smp-cache.0.topology=thread", "thread level cache not supported by this machine"),
            ("0.cache=l2,smp-cache.0.topology=cluster", "Invalid topology level: cluster. "),
            ("0.cache=l2,smp-cache.0.topology=core,smp-cache.1.cache=l2,smp-cache.1.topology=core", "l2. The cache properties are duplicated"),
            ("0.cache=l1d,smp-cache.0.topology=socket", "L2 cache topology level shouldn't be lower than L1 cache"),
            ("0.cache=l1d,smp-cache.0.topology=near", "does not accept value 'near'"),
            ("0.cache=l4,smp-cache.0.topology=core", "does not accept value 'l4'"),
            ("0.cache=l1d", "'smp-cache.0.topology' is missing"),
        ] {
            let out = process::run(&["-machine", &format!("pc,smp-cache.{value}")], "");
            assert!(out.code == Some(1) && out.stderr.contains(why), "{value}: {}", out.stderr);
        }
        let out = process::run(&["-machine", "none,smp-cache.0.cache=l1d,smp-cache.0.topology=core"], "");
        assert!(out.stderr.contains("l1d cache topology not supported by this machine"), "{}", out.stderr);
    }
    machine_support: ["-machine", "pc,confidential-guest-support=x"] |r| { assert!(r.error().contains("Device 'x' not found")); }
    machine_lists: ["-M", "none,help"] |r| { assert!(r.text().contains("memory-backend=<")); }
    cpu: ["-cpu", "qemu64,-sse3,+rdtscp,model=9,xlevel=0x80000008"] |r| {
        let mut q = r.pc();
        let cpu = "/machine/unattached/device[0]";
        let got = ["sse3", "rdtscp", "model", "xlevel"].map(|p| get(&mut q, cpu, p));
        assert_eq!(got, [json!(false), json!(true), json!(9), json!(0x8000_0008u32)]);
    }
    accel: ["-accel", "accel=tcg,thread=single", "-S"] |r| {
        let mut q = r.none();
        assert_eq!(q.run("query-accelerators", json!({}))["enabled"], "tcg");
        assert_eq!(get(&mut q, "/machine", "type"), "none-machine");
    }
    accel_torture: ["-accel", "tcg,x-torture=7", "-S"] |r| { r.none(); }
    accel_tier: ["-accel", "tcg,tier=jit,threshold=7,tb-size=8,split-wx=on", "-S"] |r| { r.none(); }
    accel_tb_size: ["-accel", "tcg,tb-size=2048"] |r| {
        let args = r.with(&["-machine", "none"]);
        for (size, args) in [("2048", &args[..]), ("4294967295", &["-machine", "none", "-accel", "tcg,tier=jit,tb-size=4294967295"])] {
            let out = process::run(args, "");
            assert!(out.code == Some(1) && out.stderr.lines().count() == 1, "{out:?}");
            assert!(out.stderr.ends_with(&format!("tb-size={size}: compiled code can take 2047 MiB at most\n")), "{out:?}");
        }
    }
    accel_refused: ["-accel", "tcg,tier=jit"] |r| {
        r.put("in", "{'execute':'qmp_capabilities'}{'execute':'quit'}");
        // A process that may have 256 MiB of addresses has no room for two mappings of 128.
        let run = |args: &[&str]| {
            let mut c = std::process::Command::new("bash");
            c.args(["-c", "ulimit -v 262144; exec \"$@\"", "sh", process::binary().to_str().unwrap()]);
            c.args(args).args(["-machine", "none", "-nodefaults", "-qmp", "stdio"]).stdin(std::fs::File::open(r.path("in")).unwrap());
            c.output().unwrap()
        };
        let out = run(&r.with(&[]));
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        assert!(text.contains("tier=jit: the host has no 128 MiB of memory for compiled code: "), "{text}");
        // Whoever does not insist gets the interpreter.
        let out = run(&["-accel", "tcg", "-S"]);
        assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).contains("QMP"), "{out:?}");
    }
    accel_split: ["-accel", "tcg,split-wx=off"] |r| { assert!(r.error().contains("split-wx=off is not supported")); }
    enable_kvm: ["-enable-kvm"] |r| { assert!(r.error().contains("use tcg (and -cpu max)")); }
    smp: ["-smp", "cpus=2,drawers=1,books=1,sockets=1,dies=1,clusters=1,modules=1,cores=3,threads=2,maxcpus=6"] |r| {
        let smp = get(&mut r.pc(), "/machine", "smp");
        let got = ["cpus", "sockets", "dies", "modules", "cores", "threads", "maxcpus"].map(|k| smp[k].as_u64().unwrap_or(1));
        assert_eq!(got, [2, 1, 1, 1, 3, 2, 6], "{smp}");
    }
    m: ["-m", "size=64,slots=2,maxmem=1G"] |r| {
        let memory = get(&mut r.pc(), "/machine", "memory");
        assert_eq!(memory, json!({"size": 64 << 20, "slots": 2, "max-size": 1 << 30}));
    }
    m_zero: ["-m", "0"] |r| { assert_eq!(get(&mut r.pc(), "/machine", "memory")["size"], 128 << 20); }
    uuid: ["-uuid", "550E8400-e29b-41d4-a716-446655440000"] |r| {
        assert_eq!(r.none().run("query-uuid", json!({}))["UUID"], "550e8400-e29b-41d4-a716-446655440000");
    }
    rtc: ["-rtc", "base=2031-12-30T21:34:56,clock=vm,driftfix=slew"] |r| {
        let mut q = r.qtest();
        // BCD, 24 hours; the clock stands until it is moved.
        assert_eq!([4, 2, 0, 7, 8, 9, 0x32].map(|i| cmos(&mut q, i)), [0x21, 0x34, 0x56, 0x30, 0x12, 0x31, 0x20]);
        q.clock_step(2_000_000_000);
        assert_eq!(cmos(&mut q, 0), 0x58);
        assert!(r.pc().hmp("info qtree").contains("lost_tick_policy = \"slew\""));
    }
}
