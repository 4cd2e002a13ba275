//! Every CPU model against what QEMU 11.1 says of it (`testdata/`), and what properties do.

use hw_core::accel::Accel;
use hw_core::{AddressSpace, Core, Device, DeviceClass, DeviceImpl, Locked, Machine, MemoryRegion};
use qom::{Prop, Ref, Registry, Result, World};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use target_i386::cpu::features::{self, AMD_ALIASES, FeatureSet};
use target_i386::cpu::query::{Expansion, expand_model};
use target_i386::cpu::words::{ANY, Place, Reg, TABLE};
use target_i386::cpu::{X86Cpu, definitions, models::entries, parse_cpu_option};
use target_i386::sys::cpuid::CpuidTable;

const MODELS: &str = include_str!("../testdata/cpu-models.txt");
const CPUID: &str = include_str!("../testdata/cpuid-tcg.txt");
const PROPERTIES: &str = include_str!("../testdata/cpu-properties.txt");

/// The board's local APIC, as far as a CPU sees its device.
#[derive(qom::Object)]
#[qom(name = "apic", parent = Device, methods(DeviceClass))]
struct TestApic {
    parent: Device,
    #[property]
    id: Prop<u32>,
}
impl DeviceImpl for TestApic {
    fn realize(&self, m: &mut Locked) -> Result<()> {
        assert!(self.parent().is_some_and(|p| p.is_a("x86_64-cpu")));
        self.parent_realize(m)
    }
}

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|l| !l.starts_with('#') && !l.is_empty())
}
fn world() -> World {
    World::new(Core::new())
}
/// A world with the machine `none` in it.
fn machine() -> World {
    let w = world();
    Machine::create(&w, "none-machine").unwrap();
    w
}
fn warnings(w: &World) -> Arc<Mutex<Vec<String>>> {
    let all: Arc<Mutex<Vec<String>>> = Arc::default();
    let to = all.clone();
    w.ext::<Core>().unwrap().events.warning.add(move |_, s| to.lock().unwrap().push(s.clone()));
    all
}
fn new(w: &World, option: &str) -> Ref<X86Cpu> {
    let o = parse_cpu_option(option).unwrap();
    let cpu: Ref<X86Cpu> = w.object_new_as(&o.type_name).unwrap();
    for (k, v) in &o.properties {
        cpu.set_str(k, v).unwrap();
    }
    let id = w.ext::<Core>().unwrap().cpus.list().len();
    cpu.set("apic-id", json!(id)).unwrap();
    cpu
}
fn realize(w: &World, option: &str) -> Result<Ref<X86Cpu>> {
    let cpu = new(w, option);
    realize_device(w, &cpu)?;
    Ok(cpu)
}
fn realize_device(w: &World, d: &Device) -> Result<()> {
    d.qdev_realize(&mut w.ext::<Core>().unwrap().lock())
}
fn on(props: &Map<String, Value>) -> BTreeSet<&str> {
    let names = target_i386::cpu::words::names();
    names.iter().copied().filter(|n| props.get(*n) == Some(&json!(true))).collect()
}

#[test]
fn every_model_expands_as_the_reference() {
    let w = world();
    let defs = definitions(false);
    let mut seen = BTreeSet::new();
    for line in lines(MODELS) {
        if let Some((name, of)) = line.split_once(" = ") {
            let d = defs.iter().find(|d| d["name"] == name).expect(name);
            assert_eq!(d["alias-of"], of, "{name}");
            assert_eq!(d["typename"], format!("{name}-x86_64-cpu"));
            seen.insert(name.to_owned());
            continue;
        }
        let parts: Vec<&str> = line.split(" | ").collect();
        let [head, id, flags, features] = parts[..] else { panic!("{line}") };
        let head: Vec<&str> = head.split(' ').collect();
        let [name, vendor, numbers @ ..] = &head[..] else { panic!("{line}") };
        let (_, full) = expand_model(&w, Expansion::Full, name, &Map::new()).unwrap();
        let n = |s: &str| s.strip_prefix("0x").map_or_else(|| s.parse(), |h| u64::from_str_radix(h, 16)).unwrap();
        if *name != "max" {
            for (k, v) in
                ["family", "model", "stepping", "level", "level-func7", "xlevel", "xlevel2"].iter().zip(numbers)
            {
                assert_eq!(full[*k], n(v), "{name} {k}");
            }
            let want: BTreeSet<&str> = features.split(' ').filter(|f| !f.is_empty()).collect();
            assert_eq!(on(&full), want, "{name}");
        } else {
            // Ours is what our engine implements; the leaves are shown as far as QEMU's.
            assert_eq!(on(&full), features::engine().names().into_iter().collect());
            assert_eq!((full["level"].clone(), full["xlevel"].clone()), (json!(13), json!(0x8000_0021u32)));
        }
        assert_eq!(full["vendor"], vendor.trim_matches('-'), "{name}");
        assert_eq!(full["model-id"], id, "{name}");
        assert_eq!(full["legacy-cache"], !flags.contains("no-legacy-cache"), "{name}");
        assert_eq!(full["x-force-cpuid-0x1f"], flags.contains("force-1f"), "{name}");
        let avx10 = flags.split(' ').find_map(|f| f.strip_prefix("avx10-version=")).unwrap_or("0");
        assert_eq!(full["avx10-version"], n(avx10), "{name}");
        seen.insert((*name).to_owned());
    }
    let mut ours: BTreeSet<String> = entries().iter().map(|e| e.name()).collect();
    ours.remove("host");
    assert_eq!(ours, seen);
}

#[test]
fn microvm_resolves_to_the_newest_version() {
    let newest = definitions(true);
    let of = |n: &str| newest.iter().find(|d| d["name"] == n).unwrap()["alias-of"].clone();
    assert_eq!(
        (of("EPYC"), of("Broadwell-IBRS"), of("Skylake-Server")),
        (json!("EPYC-v5"), json!("Broadwell-v3"), json!("Skylake-Server-v6"))
    );
}

/// Features of our engine that QEMU's has not: filtered in the reference.
const ONLY_OURS: &str = "tsc-deadline vme";

fn reference() -> BTreeMap<&'static str, CpuidTable> {
    let hex = |s: &str| u32::from_str_radix(s, 16).unwrap();
    let mut all = BTreeMap::new();
    for line in lines(CPUID) {
        let (names, leaves) = line.split_once(" = ").unwrap();
        let leaf = |l: &str| {
            let (at, regs) = l.split_once(':').unwrap();
            let (leaf, sub) = at.split_once('.').unwrap();
            let r: Vec<u32> = regs.split(',').map(hex).collect();
            (hex(leaf), sub.parse().unwrap(), r.try_into().unwrap())
        };
        names.split(' ').for_each(|n| _ = all.insert(n, CpuidTable::new(leaves.split(' ').map(leaf))));
    }
    all
}

#[test]
fn guests_read_the_leaves_of_the_reference() {
    let reference = reference();
    assert_eq!(reference.len(), 125);
    let hidden = [0xd, 0x8000_000a];
    for (name, want) in &reference {
        let w = machine();
        let cpu = realize(&w, name).unwrap();
        let have = CpuidTable::new(cpu.leaves());
        let (_, asked) = expand_model(&w, Expansion::Full, name, &Map::new()).unwrap();
        let asked = FeatureSet::parse(&on(&asked).into_iter().collect::<Vec<_>>().join(" "));
        let shown = asked & *features::engine();
        let amd = have.get(0, 0)[1] == 0x6874_7541;
        let intel = have.get(0, 0)[1] == 0x756e_6547;
        // What a guest sees is the model and the engine, bit for bit.
        for (i, word) in TABLE.iter().enumerate() {
            let Place::Cpuid(leaf, sub, reg) = word.place else { continue };
            let mut v = shown.at(i) as u32;
            if amd && (leaf, reg) == (0x8000_0001, Reg::EDX) {
                v |= shown.cpuid(1, ANY, Reg::EDX) & AMD_ALIASES as u32;
            }
            let sub = if sub == ANY { 0 } else { sub };
            // Numbers share registers with features in leaf 7 alone, and not with these.
            assert_eq!(have.get(leaf, sub)[reg as usize], v, "{name} {leaf:x}.{sub} {reg:?}");
        }
        let both = shown & !FeatureSet::parse(ONLY_OURS);
        for leaf in (0..=0x29)
            .chain(0x4000_0000..=0x4000_0001)
            .chain(0x8000_0000..=0x8000_0022)
            .chain(0xc000_0000..=0xc000_0001)
        {
            let subs = if [4, 7, 0xb, 0x1f, 0x8000_001d].contains(&leaf) { 8 } else { 1 };
            for sub in 0..subs {
                for (reg, at) in [Reg::EAX, Reg::EBX, Reg::ECX, Reg::EDX].into_iter().zip(0..) {
                    let (h, r) = (have.get(leaf, sub)[at], want.get(leaf, sub)[at]);
                    let word =
                        [ANY, sub].into_iter().find(|s| TABLE.iter().any(|t| t.place == Place::Cpuid(leaf, *s, reg)));
                    let mask = match word {
                        Some(s) => {
                            let mut m = both.cpuid(leaf, s, reg);
                            if (leaf, reg) == (0x8000_0001, Reg::EDX) {
                                m |= both.cpuid(1, ANY, Reg::EDX) & AMD_ALIASES as u32;
                                // Intel's processors show SYSCALL in 64-bit mode only; the reference is of real mode.
                                m &= if intel { !(1 << 11) } else { !0 };
                            }
                            m
                        }
                        None if hidden.contains(&leaf) => 0,
                        // Bits of linear addresses: 5-level paging is not there.
                        None if leaf == 0x8000_0008 && at == 0 => !0x0f00,
                        // Subleaves beyond the last one of a topology answer with their number.
                        None if (leaf == 0xb || leaf == 0x1f) && sub >= 2 => 0,
                        None => !0,
                    };
                    assert_eq!(h & mask, r & mask, "{name} {leaf:x}.{sub} {reg:?}: {h:x}, reference {r:x}");
                }
            }
        }
    }
}

#[test]
fn realized_numbers() {
    let w = machine();
    for (name, phys, ucode) in [("486", 32, 0x1_0000_0000u64), ("n270", 36, 0x1_0000_0000), ("EPYC", 40, 0x0100_0065)] {
        let c = realize(&w, name).unwrap();
        assert_eq!((c.get("phys-bits").unwrap(), c.get("ucode-rev").unwrap()), (json!(phys), json!(ucode)), "{name}");
        assert_eq!(c.get("guest-phys-bits").unwrap(), 0);
    }
}

#[test]
fn properties_are_those_of_the_reference() {
    let registry = Registry::global();
    let class = |n: &str| registry.class(&format!("{n}-x86_64-cpu")).unwrap();
    let (common, max) = (class("qemu64"), class("max"));
    let mut seen = BTreeSet::new();
    for line in lines(PROPERTIES) {
        let (class, line) = match line.strip_prefix("max: ") {
            Some(l) => (max, l),
            None => (common, line),
        };
        let mut parts = line.splitn(3, ' ');
        let (name, ty) = (parts.next().unwrap(), parts.next().unwrap());
        let p = class.find_property(name).unwrap_or_else(|| panic!("no property {name}"));
        assert_eq!(p.type_name(), ty, "{name}");
        if let Some(d) = parts.next() {
            assert_eq!(p.default(), Some(&serde_json::from_str::<Value>(d).unwrap()), "{name}");
        }
        seen.insert(name);
    }
    for p in max.properties() {
        assert!(seen.contains(p.name()), "{} is not in the reference", p.name());
    }
}

#[test]
fn what_cannot_be_had_is_said() {
    let w = machine();
    let said = warnings(&w);
    let c = realize(&w, "qemu64,+avx2,+popcnt,-sse3").unwrap();
    assert_eq!(
        *said.lock().unwrap(),
        ["TCG doesn't support requested feature: CPUID[eax=07h,ecx=00h].EBX.avx2 [bit 5]"]
    );
    assert_eq!(c.get("unavailable-features").unwrap(), json!(["avx2", "svm"]));
    let leaf = |l| CpuidTable::new(c.leaves()).get(l, 0);
    assert_eq!((leaf(1)[2] & 1, leaf(1)[2] >> 23 & 1, leaf(7)), (0, 1, [0; 4]));
    assert_eq!(c.get("svm").unwrap(), false);
    // The machine's second CPU is like the first one: nothing to add.
    realize(&w, "qemu64,+avx2").unwrap();
    assert_eq!(said.lock().unwrap().len(), 1);

    let w = machine();
    let said = warnings(&w);
    realize(&w, "qemu64,+svm").unwrap();
    assert!(said.lock().unwrap()[0].contains("CPUID[eax=80000001h].ECX.svm [bit 2]"));
    let w = machine();
    let said = warnings(&w);
    realize(&w, "qemu64,check=off,+avx").unwrap();
    assert_eq!(*said.lock().unwrap(), [""; 0]);
    let w = machine();
    let e = realize(&w, "qemu64,enforce=on").unwrap_err().to_string();
    assert_eq!(e, "TCG doesn't support requested features: svm");
    assert!(w.ext::<Core>().unwrap().cpus.list().is_empty());
    realize(&w, "qemu64,-svm,enforce=on").unwrap();
    for model in ["qemu32", "pentium3", "kvm64", "max", "base"] {
        let w = machine();
        let said = warnings(&w);
        realize(&w, &format!("{model},enforce=on")).unwrap();
        assert_eq!(*said.lock().unwrap(), [""; 0], "{model}");
    }
}

#[test]
fn features_need_their_ground() {
    let w = machine();
    let said = warnings(&w);
    let c = realize(&w, "qemu64,-svm,+npt").unwrap();
    assert_eq!(
        *said.lock().unwrap(),
        ["This feature depends on other features that were not requested: CPUID[eax=8000000Ah].EDX.npt [bit 0]"]
    );
    assert_eq!(c.get("npt").unwrap(), false);
}

#[test]
fn levels_follow_features() {
    let w = machine();
    for (option, basic, func7) in [
        ("pentium3", 3, 0),
        ("pentium3,+smep", 7, 0),
        ("pentium3,+avx-vnni", 7, 1),
        ("pentium3,+smep,level=5", 5, 0),
        ("pentium3,min-level=9", 9, 0),
        ("pentium3,x-force-cpuid-0x1f=on", 0x1f, 0),
    ] {
        let c = new(&w, option);
        c.expand();
        assert_eq!((c.get("level").unwrap(), c.get("level-func7").unwrap()), (json!(basic), json!(func7)), "{option}");
    }
}

#[test]
fn max_without_a_feature() {
    let w = machine();
    let c = realize(&w, "max,-smap,family=15,model=0x10").unwrap();
    assert_eq!((c.get("smap").unwrap(), c.get("smep").unwrap()), (json!(false), json!(true)));
    assert_eq!(CpuidTable::new(c.leaves()).get(1, 0)[0], 0x0001_0f03);
}

#[test]
fn values_that_are_refused() {
    let w = machine();
    let c = new(&w, "qemu64");
    for (name, value, what) in [
        ("vendor", "Me", "exactly 12 characters"),
        ("family", "271", "at most 270"),
        ("stepping", "16", "at most 15"),
        ("hv-relaxed", "on", "needs the accelerator kvm"),
        ("pmu", "on", "needs performance counters"),
        ("hv-spinlocks", "4096", "needs the accelerator kvm"),
        ("lbr-fmt", "5", "needs last-branch records"),
        ("tsc-frequency", "-1", "at least 0"),
        ("avx2", "maybe", "'on' or 'off'"),
    ] {
        let e = c.set_str(name, value).expect_err(name).to_string();
        assert!(e.contains(what), "{name}: {e}");
    }
    for (name, value) in [
        ("hv-relaxed", "off"),
        ("hv-spinlocks", "0xffffffff"),
        ("hv-version-id-build", "0x1bbc"),
        ("kvm", "off"),
        ("legacy-multi-node", "on"),
    ] {
        c.set_str(name, value).expect(name);
    }
    let e = realize(&w, "qemu64,phys-bits=60").unwrap_err().to_string();
    assert!(e.contains("between 32 and 52"), "{e}");
    let cpu: Ref<X86Cpu> = w.object_new_as("host-x86_64-cpu").unwrap();
    let e = realize_device(&w, &cpu).unwrap_err().to_string();
    assert!(e.contains("use 'max'"), "{e}");
}

#[test]
fn a_realized_cpu_has_its_apic_and_address_spaces() {
    let w = machine();
    let c = realize(&w, "qemu64").unwrap();
    let at = c.path();
    assert_eq!(at, "/machine/unattached/device[0]");
    for (child, ty) in [("lapic", "apic"), ("memory[0]", "memory-region"), ("memory[1]", "memory-region")] {
        assert_eq!(w.resolve(&format!("{at}/{child}")).unwrap().type_name(), ty, "{child}");
    }
    assert_eq!((c.address_space().name(), c.smm_address_space().name()), ("cpu-memory-0", "cpu-smm-0"));
    assert_eq!(c.get("hotpluggable").unwrap(), true);
    assert!(c.set_str("sse2", "off").unwrap_err().to_string().contains("after it was realized"));
    let core = w.ext::<Core>().unwrap();
    assert_eq!(core.cpus.list().len(), 1);
    c.remove(&mut core.lock());
    assert_eq!(core.cpus.list().len(), 0);
    assert!(w.resolve(&at).is_err());
    // Without an APIC in the model there is none.
    let old = realize(&w, "486").unwrap();
    assert!(old.child("lapic").is_none());
}

#[test]
fn expansions() {
    let w = world();
    let mut props = Map::new();
    props.insert("avx".into(), json!(true));
    let (name, full) = expand_model(&w, Expansion::Full, "Nehalem-v1", &props).unwrap();
    assert_eq!((name.as_str(), &full["avx"], &full["level"]), ("Nehalem-v1", &json!(true), &json!(11)));
    assert!(!full.contains_key("feature-words") && !full.contains_key("realized"));
    let (name, fixed) = expand_model(&w, Expansion::Static, "qemu64", &Map::new()).unwrap();
    assert_eq!(
        (name.as_str(), &fixed["svm"], &fixed["family"], &fixed["avx"]),
        ("base", &json!(true), &json!(15), &json!(false))
    );
    // Setting all of them on `base` gives the model again.
    let (_, again) = expand_model(&w, Expansion::Static, "base", &fixed).unwrap();
    assert_eq!(again, fixed);
    props.insert("avy".into(), json!(true));
    assert!(expand_model(&w, Expansion::Full, "max", &props).unwrap_err().to_string().contains("'avx'"));
}

#[test]
fn topology_is_in_the_leaves() {
    let w = world();
    let m = Machine::create(&w, "test-machine").unwrap();
    m.set_str("smp.cpus", "12").unwrap();
    let t = json!({"cpus": 12, "sockets": 2, "cores": 3, "threads": 2, "maxcpus": 12});
    m.set("smp", t).unwrap();
    let cpu = |option: &str, id: u32| {
        let c = new(&w, option);
        c.set("apic-id", json!(id)).unwrap();
        realize_device(&w, &c).unwrap();
        (CpuidTable::new(c.leaves()), c)
    };
    // Socket 1, core 2, thread 1 in 1 + 2 + 1 bits.
    let (t, c) = cpu("Nehalem", 0b1101);
    assert_eq!(t.get(1, 0)[1], 0x0d08_0800);
    assert_eq!(
        (t.get(1, 0)[3] >> 28 & 1, c.get("ht").unwrap(), c.get("cmp-legacy").unwrap()),
        (1, json!(true), json!(false))
    );
    assert_eq!(t.get(0xb, 0), [1, 2, 0x100, 13]);
    assert_eq!(t.get(0xb, 1), [3, 6, 0x201, 13]);
    // Level 1 is a core's (2 ids), level 3 a die's (8); 4 ids of cores.
    assert_eq!((t.get(4, 0)[0] >> 14, t.get(4, 3)[0] >> 14), (3 << 12 | 1, 3 << 12 | 7));
    assert_eq!(t.get(0x8000_0008, 0)[2], 0);
    let (t, c) = cpu("EPYC", 0);
    assert_eq!((t.get(1, 0)[1] >> 16 & 0xff, t.get(0x8000_0008, 0)[2]), (6, 3 << 12 | 5));
    assert_eq!(c.get("cmp-legacy").unwrap(), true);
    assert_eq!(t.get(0x8000_001d, 3)[0] >> 14, 7);
    let (t, _) = cpu("SapphireRapids-v4", 13);
    assert_eq!((t.get(0x1f, 0), t.get(0x1f, 1)), ([1, 2, 0x100, 13], [3, 6, 0x201, 13]));
}

#[test]
fn smp_cache_moves_caches_to_other_levels() {
    let ids = |model: &str, caches: &[(&str, &str)]| {
        let w = world();
        let m = Machine::create(&w, "test-machine").unwrap();
        m.set("smp", json!({"cpus": 8, "sockets": 1, "dies": 2, "cores": 2, "threads": 2})).unwrap();
        let list: Vec<_> = caches.iter().map(|(c, t)| json!({"cache": c, "topology": t})).collect();
        m.set("smp-cache", json!(list)).map_err(|e| e.to_string())?;
        let c = new(&w, model);
        c.set("apic-id", json!(0)).unwrap();
        realize_device(&w, &c).map_err(|e| e.to_string())?;
        let t = CpuidTable::new(c.leaves());
        let leaf = if model == "EPYC" { 0x8000_001d } else { 4 };
        let levels: Vec<_> =
            m.get("smp-cache").unwrap().as_array().unwrap().iter().map(|c| c["topology"].clone()).collect();
        Ok::<_, String>(([0, 1, 2, 3].map(|i| (t.get(leaf, i)[0] >> 14 & 0xfff) + 1), levels))
    };
    // A core has 2 ids, a die 4, a socket 8.
    assert_eq!(ids("Nehalem", &[]).unwrap().0, [2, 2, 2, 4]);
    let (shared, levels) = ids("Nehalem", &[("l2", "die"), ("l3", "socket")]).unwrap();
    assert_eq!((shared, levels), ([2, 2, 4, 8], vec![json!("core"), json!("core"), json!("die"), json!("socket")]));
    assert_eq!(ids("Nehalem", &[("l3", "core")]).unwrap().0, [2, 2, 2, 2]);
    assert_eq!(ids("Nehalem", &[("l1i", "default")]).unwrap().0, [2, 2, 2, 4]);
    assert_eq!(ids("EPYC", &[("l1d", "die"), ("l2", "die")]).unwrap().0, [4, 2, 4, 4]);
    for (caches, error) in [
        (&[("l1d", "socket")][..], "L2 cache topology level shouldn't be lower than L1 cache"),
        (&[("l1i", "die")], "L2 cache topology level shouldn't be lower than L1 cache"),
        (&[("l2", "die"), ("l3", "core")], "L3 cache topology level shouldn't be lower than L2 cache"),
        (&[("l2", "die"), ("l2", "die")], "Invalid cache properties: l2. The cache properties are duplicated"),
        (&[("l2", "thread")], "thread level cache not supported by this machine"),
        (&[("l2", "module")], "Invalid topology level: module. The topology level is not supported by this machine"),
        (&[("l4", "core")], "l4"),
    ] {
        let e = ids("Nehalem", caches).unwrap_err();
        assert!(e.contains(error), "{caches:?}: {e}");
    }
}

/// A machine that takes more than one CPU, with a link to its SMRAM as boards have it.
#[derive(qom::Object)]
#[qom(name = "test-machine", parent = Machine, class_init = TestMachine::class_init)]
struct TestMachine {
    parent: Machine,
}
impl TestMachine {
    fn class_init(c: &mut qom::Class) {
        let mc = c.edit::<hw_core::MachineClass>();
        mc.max_cpus = 64;
        (mc.smp.dies, mc.smp.caches) = (true, true);
        c.property(qom::Property::new("smram", "link<memory-region>").reader(|_| Ok("/machine/smram[0]".into())));
    }
}

/// A machine of this type under `tcg`.
fn tcg(type_name: &str) -> World {
    let w = world();
    let m = Machine::create(&w, type_name).unwrap();
    let accel = Accel::create(&w, "tcg").unwrap();
    accel.init_machine(&m, &mut w.ext::<Core>().unwrap().lock()).unwrap();
    w
}

#[test]
fn smram_lies_over_memory_in_smm_only() {
    let w = tcg("test-machine");
    let core = w.ext::<Core>().unwrap();
    let machine = Machine::of(&w).unwrap();
    let smram = MemoryRegion::container(&**Ref::object(&machine), "smram", 1 << 32);
    let low = MemoryRegion::ram(&**Ref::object(&machine), "low", 0x2_0000).unwrap();
    let c = {
        smram.add_subregion(&mut core.lock(), 0xa_0000, &low);
        let c = realize(&w, "qemu64").unwrap();
        machine.creation_done(&mut core.lock());
        c
    };
    let at = |s: &AddressSpace| s.view().find(0xa_1000).map(|r| r.region.name().to_owned());
    assert_eq!((at(&c.address_space()), at(&c.smm_address_space()).as_deref()), (None, Some("low")));
    // One that comes later sees it at once.
    let late = realize(&w, "qemu64").unwrap();
    assert_eq!(at(&late.smm_address_space()).as_deref(), Some("low"));
    [c, late].iter().for_each(|c| c.remove(&mut core.lock()));
    core.shut_down();
}

#[test]
fn registers_as_text_and_in_a_snapshot() {
    let w = tcg("none-machine");
    let core = w.ext::<Core>().unwrap();
    let c = realize(&w, "qemu64").unwrap();
    let text = || (c.cpu_class().dump_state)(&c);
    assert!(text().starts_with("EAX=00000000 EBX=00000000 ECX=00000000 EDX=00060fb1\nESI="), "{}", text());
    assert!(text().contains("\nEIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0\n"), "{}", text());
    assert!(text().contains("\nCS =f000 ffff0000 0000ffff 00009b00\n"));
    // The lock is not held while the registers are: somebody may be waiting for it there.
    let root = w.root().clone();
    let save = || hw_core::save(&root, &core.lock()).unwrap();
    let before = save();
    {
        let vcpu = c.vcpu().unwrap();
        let mut v = vcpu.lock();
        let (hot, s) = v.parts();
        hot.regs[..16].fill(0x1234_5678_9abc_def0);
        hot.x[5] = u128::MAX - 3;
        s.set_flags(hot, 0xad7, u32::MAX);
        s.r.cr3 = 0x1000;
        s.r.segs[0].base = 0x777;
        s.sync(hot);
        v.set_pc(0x4321);
    }
    let changed = save();
    assert_ne!(before, changed);
    assert!(
        text().contains("EFL=00000ad7 [-OSZAPC]") && text().contains("XMM05=ffffffffffffffff fffffffffffffffc"),
        "{}",
        text()
    );
    hw_core::load(&root, &mut core.lock(), &before).unwrap();
    assert_eq!(save(), before);
    hw_core::load(&root, &mut core.lock(), &changed).unwrap();
    assert_eq!(save(), changed);
    // Impossible registers are refused.
    let mut bad = changed.clone();
    let at = c.path();
    bad["objects"][&at]["x86_64-cpu.registers"]["regs"]["cpl"] = json!(4);
    assert!(hw_core::load(&root, &mut core.lock(), &bad).unwrap_err().to_string().contains("impossible registers"));
    // Reset puts the power-on state back.
    (c.cpu_class().reset)(&c, &mut core.lock());
    assert_eq!(save(), before);
    assert_eq!((c.cpu_class().pc)(&c), 0xffff_fff0);
    assert_eq!((c.cpu_class().translate)(&c, 0x1_2345), Some(0x1_2345));
    c.remove(&mut core.lock());
    core.shut_down();
}
