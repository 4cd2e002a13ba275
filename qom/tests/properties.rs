//! Properties by name: conversions, errors, bits, links, aliases, structures, freezing.

use qom::{
    Base, Class, Container, Error, Handle, Input, Link, ObjRef, Object, OnOffAuto, Prop, PropEnum, PropStruct,
    PropType, Property, Reject, Result, Size, World,
};
use serde_json::{Value, json};

#[derive(Clone, Debug, Default, PartialEq, PropStruct)]
#[qom(name = "SMPConfiguration")]
struct Smp {
    cpus: Option<u64>,
    #[qom(name = "maxcpus")]
    max_cpus: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, PropEnum)]
#[qom(name = "BiosAtaTranslation")]
enum Translation {
    #[default]
    Auto,
    None,
    Lba,
    #[qom(name = "rechs")]
    RevisedEchs,
}

/// A type with its own syntax, as devices have for PCI addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Devfn(i32);

impl PropType for Devfn {
    type Cell = crossbeam_utils::atomic::AtomicCell<Self>;
    const TYPE: &'static str = "str";
    fn to_json(&self) -> Value {
        format!("{:02x}.{:x}", self.0 >> 3, self.0 & 7).into()
    }
    fn take(input: Input<'_>) -> std::result::Result<Self, Reject> {
        let text = input.string()?;
        let (slot, f) = text.split_once('.').unwrap_or((text, "0"));
        match (i32::from_str_radix(slot, 16), i32::from_str_radix(f, 16)) {
            (Ok(slot @ 0..=31), Ok(f @ 0..=7)) => Ok(Self(slot << 3 | f)),
            _ => Err(Reject::value(text, "slot.function in hexadecimal, such as 1f.2")),
        }
    }
}

trait Bus {}
qom::interface!(dyn Bus, "t-bus-if");

#[derive(Object)]
#[qom(name = "t-bus", parent = Base, interfaces(dyn Bus))]
struct TBus {
    parent: Base,
}
impl Bus for TBus {}

#[derive(Object)]
#[qom(name = "t-dev", parent = Base, class_init = TDev::class_init)]
struct TDev {
    parent: Base,
    #[property]
    u8: Prop<u8>,
    #[property]
    u32: Prop<u32>,
    #[property]
    u64: Prop<u64>,
    #[property]
    i32: Prop<i32>,
    #[property]
    i64: Prop<i64>,
    #[property]
    flag: Prop<bool>,
    #[property]
    text: Prop<String>,
    #[property]
    size: Prop<Size>,
    #[property(default = OnOffAuto::On, live)]
    mode: Prop<OnOffAuto>,
    #[property]
    bios_trans: Prop<Translation>,
    #[property]
    addr: Prop<Devfn>,
    #[property]
    nodes: Prop<Vec<u16>>,
    #[property]
    names: Prop<Vec<String>>,
    #[property]
    smp: Prop<Smp>,
    #[property(link)]
    bus: Link<dyn Bus>,
    #[property(link)]
    peer: Link<TDev>,
    #[property(read_only)]
    fixed: Prop<u8>,
    #[property(default = 0b100)]
    features: Prop<u32>,
    written: Prop<u32>,
}

impl TDev {
    fn class_init(c: &mut Class) {
        c.property(Property::bit("avx2", 0b100, |d: &Self| &d.features));
        c.property(Property::bit("both", 0b11, |d: &Self| &d.features));
        c.property(
            Property::computed::<u32>("double")
                .getter(|d: &Self| Ok(d.written.get() * 2))
                .setter(|d: &Self, v: u32| match v % 2 {
                    0 => {
                        d.written.set(v / 2);
                        Ok(())
                    }
                    _ => Err(Error::generic("must be even")),
                })
                .live(),
        );
        c.property(Property::computed::<bool>("secret").setter(|_: &Self, _: bool| Ok(())));
    }
}

fn dev() -> (World, ObjRef) {
    let w = World::bare();
    let o = w.object_new("t-dev").unwrap();
    w.root().add_child("dev", &o).unwrap();
    (w, o)
}

fn error(r: Result<()>) -> String {
    r.unwrap_err().to_string()
}

#[test]
fn integers_take_c_syntax_within_their_range() {
    let (_w, o) = dev();
    for (name, text, value) in [
        ("u8", "0xff", json!(255)),
        ("u8", "010", json!(8)),
        ("u8", "+7", json!(7)),
        ("u8", " 9", json!(9)),
        ("u8", "0", json!(0)),
        ("u32", "4294967295", json!(4_294_967_295u32)),
        ("i32", "-0x80000000", json!(i32::MIN)),
        ("i64", "-1", json!(-1)),
        ("u64", "18446744073709551615", json!(u64::MAX)),
        ("u64", "-1", json!(u64::MAX)),
    ] {
        o.set_str(name, text).unwrap();
        assert_eq!(o.get(name).unwrap(), value, "{name}={text}");
    }
    for (name, text) in [
        ("u8", "256"),
        ("u8", "-1"),
        ("u8", "08"),
        ("u8", ""),
        ("u8", "1 "),
        ("u8", "0x"),
        ("u8", "--1"),
        ("u8", "1k"),
        ("u32", "-1"),
        ("i64", "0x8000000000000000"),
        ("u64", "18446744073709551616"),
        ("u64", "-9223372036854775809"),
    ] {
        assert!(o.set_str(name, text).is_err(), "{name}={text}");
    }
    assert_eq!(error(o.set_str("u8", "256")), "Parameter 'u8' expects uint8 (0 to 255)");
    assert_eq!(error(o.set("u8", json!(-1))), "Parameter 'u8' expects uint8 (0 to 255)");
    assert_eq!(error(o.set("u8", json!("1"))), "Invalid parameter type for 'u8', expected: integer");
    assert_eq!(error(o.set("u8", json!(1.5))), "Invalid parameter type for 'u8', expected: integer");
    assert_eq!(o.get("u8").unwrap(), json!(0), "a refused value changes nothing");
}

#[test]
fn booleans() {
    let (_w, o) = dev();
    for (text, value) in [("on", true), ("off", false), ("yes", true), ("no", false)] {
        o.set_str("flag", text).unwrap();
        assert_eq!(o.get("flag").unwrap(), json!(value));
    }
    for (text, value) in [("true", true), ("false", false), ("y", true), ("n", false)] {
        o.set_str("flag", text).unwrap();
        assert_eq!(o.get("flag").unwrap(), json!(value));
    }
    assert_eq!(error(o.set_str("flag", "ON")), "Parameter 'flag' expects 'on' or 'off'");
    assert_eq!(error(o.set("flag", json!("on"))), "Invalid parameter type for 'flag', expected: boolean");
    o.set("flag", json!(true)).unwrap();
}

#[test]
fn sizes() {
    for (text, value) in [
        ("0", Some(0)),
        ("4096", Some(4096)),
        ("4096b", Some(4096)),
        ("1k", Some(1 << 10)),
        ("4G", Some(4 << 30)),
        ("1.5M", Some(3 << 19)),
        (".5k", Some(512)),
        ("1.k", Some(1024)),
        ("0.1G", Some(107_374_182)),
        ("12.345M", Some(12_944_671)),
        ("1.9999k", Some(2048)),
        ("1.999999999999999999E", Some(2_305_843_009_213_693_951)),
        ("15.9E", Some(18_331_451_923_248_866_918)),
        ("0x20", Some(32)),
        ("0x1b", Some(27)),
        ("010", Some(10)),
        ("+5", Some(5)),
        ("18446744073709551615", Some(u64::MAX)),
        ("16E", None),
        ("-1", None),
        ("-0", None),
        ("", None),
        (".", None),
        ("K", None),
        ("1KiB", None),
        ("1 K", None),
        ("1.5", None),
        ("1.5B", None),
        ("1e3", None),
        ("0x20M", None),
        ("0x1.8", None),
        ("0x", None),
        ("inf", None),
        ("1.-5k", None),
        ("é", None),
    ] {
        assert_eq!(Size::parse(text), value, "{text}");
    }
    assert_eq!(Size::parse_unit("128", 1 << 20), Some(128 << 20));
    assert_eq!(Size::parse_unit("1.5", 1 << 20), Some(3 << 19));
    let (_w, o) = dev();
    o.set_str("size", "1G").unwrap();
    assert_eq!((o.get("size").unwrap(), o.print("size").unwrap()), (json!(1 << 30), "1073741824 (1 GiB)".into()));
    assert!(error(o.set_str("size", "much")).starts_with("Parameter 'size' expects a non-negative number"));
    assert_eq!(error(o.set("size", json!("1G"))), "Invalid parameter type for 'size', expected: integer");
}

#[test]
fn enumerations_say_what_they_accept() {
    let (_w, o) = dev();
    o.set_str("bios-trans", "rechs").unwrap();
    assert_eq!(o.get("bios-trans").unwrap(), json!("rechs"));
    o.set("bios-trans", json!("lba")).unwrap();
    assert_eq!(o.print("bios-trans").unwrap(), "\"lba\"");
    assert_eq!(
        error(o.set_str("bios-trans", "Lba")),
        "Parameter 'bios-trans' does not accept value 'Lba' (accepted: auto, none, lba, rechs)"
    );
    let info = o.property_info("bios-trans").unwrap();
    assert_eq!((info.ty.as_str(), info.values), ("BiosAtaTranslation", &["auto", "none", "lba", "rechs"][..]));
    assert_eq!(Translation::from_text("none"), Some(Translation::None));
    assert_eq!(Translation::RevisedEchs.as_str(), "rechs");
}

#[test]
fn types_of_other_crates_have_their_own_syntax() {
    let (_w, o) = dev();
    o.set_str("addr", "1f.2").unwrap();
    assert_eq!(o.get("addr").unwrap(), json!("1f.2"));
    assert_eq!(
        error(o.set_str("addr", "20.0")),
        "Property 't-dev.addr' doesn't take value '20.0': expected slot.function in hexadecimal, such as 1f.2"
    );
}

#[test]
fn lists() {
    let (_w, o) = dev();
    o.set_str("nodes", "1,4-6").unwrap();
    assert_eq!(o.get("nodes").unwrap(), json!([1, 4, 5, 6]));
    o.set("nodes", json!([7])).unwrap();
    assert_eq!(error(o.set("nodes", json!([1, 70000]))), "Parameter 'nodes[1]' expects uint16 (0 to 65535)");
    for bad in ["4-1", "1-", "-", "x", "1-65536"] {
        assert!(o.set_str("nodes", bad).is_err(), "{bad}");
    }
    assert_eq!(error(o.set_str("names", "a")), "Invalid parameter type for 'names', expected: array");
    o.set_str("names.0", "a").unwrap();
    assert_eq!(o.get("names").unwrap(), json!(["a"]));
    o.set_input("names", Input::Keyval(&json!({"0": "a", "1": "b"}))).unwrap();
    assert_eq!(o.get("names").unwrap(), json!(["a", "b"]));
    assert_eq!(error(o.set_input("names", Input::Keyval(&json!({"1": "b"})))), "Parameter 'names.0' is missing");
}

#[test]
fn structures_have_dotted_members() {
    let (_w, o) = dev();
    o.set_str("smp.cpus", "4").unwrap();
    assert_eq!(o.get("smp").unwrap(), json!({"cpus": 4}));
    o.set_input("smp", Input::Keyval(&json!({"cpus": "2", "maxcpus": "0x8"}))).unwrap();
    assert_eq!(o.get("smp").unwrap(), json!({"cpus": 2, "maxcpus": 8}));
    o.set("smp", json!({"maxcpus": 3})).unwrap();
    assert_eq!(o.cast::<TDev>().unwrap().smp.get(), Smp { cpus: None, max_cpus: Some(3) });
    assert!(error(o.set_str("smp.cpus", "x")).starts_with("Parameter 'smp.cpus' expects uint64"));
    assert_eq!(error(o.set_str("smp.cpu", "1")), "Parameter 'smp.cpu' is unexpected (did you mean 'cpus'?)");
    assert_eq!(error(o.set_str("smp", "1")), "Invalid parameter type for 'smp', expected: object");
    assert_eq!(error(o.set_str("smb.cpus", "1")), "Property 't-dev.smb.cpus' not found");
}

#[test]
fn bits_share_a_word() {
    let (_w, o) = dev();
    assert_eq!((o.get("avx2").unwrap(), o.get("both").unwrap()), (json!(true), json!(false)));
    o.set_str("both", "on").unwrap();
    o.set_str("avx2", "off").unwrap();
    assert_eq!(o.get("features").unwrap(), json!(3));
    o.set("features", json!(1)).unwrap();
    assert_eq!(o.get("both").unwrap(), json!(false), "one of two bits");
}

#[test]
fn computed_properties_run_their_functions() {
    let (_w, o) = dev();
    o.set_str("double", "8").unwrap();
    assert_eq!(o.get("double").unwrap(), json!(8));
    assert_eq!(error(o.set_str("double", "7")), "must be even");
    assert_eq!(error(o.get("secret").map(drop)), "Property 't-dev.secret' is not readable");
    assert_eq!(error(o.set_str("fixed", "1")), "Property 't-dev.fixed' is not writable");
    assert_eq!(error(o.set_str("type", "x")), "Property 't-dev.type' is not writable");
}

#[test]
fn unknown_properties_suggest_the_nearest() {
    let (_w, o) = dev();
    assert_eq!(error(o.set_str("featuers", "1")), "Property 't-dev.featuers' not found (did you mean 'features'?)");
    assert_eq!(error(o.get("quite-different").map(drop)), "Property 't-dev.quite-different' not found");
}

#[test]
fn realized_objects_take_live_properties_only() {
    let (w, o) = dev();
    o.freeze();
    assert_eq!(
        error(o.set_str("u8", "1")),
        "Attempt to set property 'u8' on device 'dev' (type 't-dev') after it was realized"
    );
    o.set_str("mode", "auto").unwrap();
    o.set_str("double", "2").unwrap();
    o.cast::<TDev>().unwrap().u8.set(5); // its own code may
    o.thaw();
    o.set_str("u8", "1").unwrap();
    let anon = w.object_new("t-dev").unwrap();
    anon.freeze();
    assert!(error(anon.set_str("u8", "1")).contains("on anonymous device (type 't-dev')"));
}

#[test]
fn links_take_paths_of_the_right_type() {
    let (w, o) = dev();
    let bus = w.object_new("t-bus").unwrap();
    w.container("/machine").unwrap().add_child("bus.0", &bus).unwrap();
    let info = o.property_info("bus").unwrap();
    assert_eq!(info.ty, "link<t-bus-if>");
    for path in ["/machine/bus.0", "bus.0", "machine/bus.0"] {
        o.set_str("bus", "").unwrap();
        assert_eq!(o.get("bus").unwrap(), json!(""));
        o.set_str("bus", path).unwrap();
        assert_eq!(o.get("bus").unwrap(), json!("/machine/bus.0"));
    }
    let e = o.set_str("bus", "/machine/nowhere").unwrap_err();
    assert_eq!((e.to_string().as_str(), e.class()), ("Device '/machine/nowhere' not found", "DeviceNotFound"));
    assert_eq!(error(o.set_str("bus", "dev")), "Invalid parameter type for 'dev', expected: t-bus-if");
    assert_eq!(error(o.set_str("peer", "/")), "Invalid parameter type for '/', expected: t-dev");
    o.set("bus", json!(null)).unwrap();
    assert!(o.cast::<TDev>().unwrap().bus.get().is_none());
    o.set_str("bus", "bus.0").unwrap();
    bus.unparent();
    drop(bus);
    assert_eq!(o.get("bus").unwrap(), json!(""), "links do not own");
}

#[test]
fn paths_go_through_links_and_aliases() {
    let (w, o) = dev();
    let other = w.object_new("t-dev").unwrap();
    w.root().add_child("other", &other).unwrap();
    o.cast::<TDev>().unwrap().peer.set(Some(&other)).unwrap();
    let at = w.resolve("/dev/peer").unwrap();
    assert!(std::sync::Arc::ptr_eq(&at, &other));
    w.root().add_alias("shortcut", &o, "peer").unwrap();
    assert!(std::sync::Arc::ptr_eq(&w.resolve("/shortcut").unwrap(), &other));
    let wrong = w.object_new("container").unwrap();
    assert!(o.cast::<TDev>().unwrap().peer.set(Some(&wrong)).is_err());
}

#[test]
fn an_alias_defers_to_its_target() {
    let (w, o) = dev();
    let outer = w.object_new("t-dev").unwrap();
    outer.add_child("inner", &{ w.object_new("t-dev").unwrap() }).unwrap();
    let inner = outer.child("inner").unwrap();
    outer.add_alias("inner-u8", &inner, "u8").unwrap();
    outer.add_alias("inner-mode", &inner, "mode").unwrap();
    outer.add_alias("kid", &outer, "inner").unwrap();
    outer.set_str("inner-u8", "9").unwrap();
    assert_eq!(inner.get("u8").unwrap(), json!(9));
    assert_eq!(outer.print("inner-u8").unwrap(), "9 (0x9)");
    assert_eq!(outer.property_info("inner-u8").unwrap().ty, "uint8");
    assert_eq!(outer.property_info("kid").unwrap().ty, "link<t-dev>");
    assert_eq!(outer.property_info("inner-mode").unwrap().default, Some(json!("on")));
    assert_eq!(error(outer.set_str("inner-u8", "300")), "Parameter 'u8' expects uint8 (0 to 255)");
    outer.freeze();
    outer.set_str("inner-u8", "1").unwrap();
    inner.freeze();
    assert!(error(outer.set_str("inner-u8", "1")).contains("after it was realized"));
    outer.set_str("inner-mode", "off").unwrap();
    assert!(outer.add_alias("x", &o, "nothing").is_err());
    outer.add_alias("gone", &w.object_new("t-dev").unwrap(), "u8").unwrap();
    assert_eq!(error(outer.get("gone").map(drop)), "the target of the alias is gone");
}

#[test]
fn objects_have_properties_of_their_own() {
    let (w, o) = dev();
    let word = |n: &'static str| Property::computed::<u32>(n).getter(|d: &TDev| Ok(d.u32.get()));
    assert_eq!(&*o.add_property(word("line[*]")).unwrap(), "line[0]");
    assert_eq!(&*o.add_property(word("line[*]")).unwrap(), "line[1]");
    o.set_str("u32", "6").unwrap();
    assert_eq!(o.get("line[1]").unwrap(), json!(6));
    assert_eq!(
        error(o.add_property(word("u8")).map(drop)),
        "attempt to add duplicate property 'u8' to object (type 't-dev')"
    );
    assert!(!w.object_new("t-dev").unwrap().has_property("line[0]"));
    o.del_property("line[0]").unwrap();
    assert!(o.del_property("line[0]").is_err() && o.del_property("u8").is_err());
    assert_eq!(&*o.add_property(word("line[*]")).unwrap(), "line[0]");
}

#[test]
fn inspection_lists_class_own_and_children() {
    let (w, o) = dev();
    let c = w.object_new("container").unwrap();
    o.add_child("kid", &c).unwrap();
    let all = o.properties();
    let kid = all.last().unwrap();
    assert_eq!((kid.name.as_str(), kid.ty.as_str(), kid.writable), ("kid", "child<container>", false));
    assert_eq!(o.get("kid").unwrap(), json!("/dev/kid"));
    assert_eq!(error(o.set_str("kid", "/x")), "Property 't-dev.kid' is not writable");
    let mode = all.iter().find(|p| p.name == "mode").unwrap();
    assert_eq!((mode.default.clone(), mode.of_class, mode.readable), (Some(json!("on")), true, true));
    assert_eq!(all.iter().find(|p| p.name == "u8").unwrap().default, None);
    assert_eq!((o.print("u8").unwrap(), o.print("text").unwrap()), ("0 (0x0)".into(), "\"\"".into()));
}

#[test]
fn levels_see_the_whole_object() {
    let (_w, o) = dev();
    let base: &Base = o.cast::<Base>().unwrap();
    base.set_str("u8", "3").unwrap();
    assert_eq!((base.get("double").unwrap(), base.path()), (json!(0), "/dev".to_owned()));
    let handle: Handle<TDev> = Handle::new(&o).unwrap();
    assert!(Handle::<Container>::new(&o).is_none());
    assert_eq!(handle.with(|d| d.u8.get()), Some(3));
}
