//! Types, classes, objects, casts: a small family in the shape devices have.

use qom::{
    Base, Class, Kind, Level, Object, OnOffAuto, Prop, Property, Registry, Result, Size, State, TypeInfo, World,
};
use serde_json::json;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A class struct whose methods are overridden and chained.
#[derive(Clone)]
struct NodeClass {
    speak: fn(&dyn Object) -> String,
    states: Vec<&'static str>,
}

impl Default for NodeClass {
    fn default() -> Self {
        Self { speak: |o| o.type_name().to_owned(), states: Vec::new() }
    }
}

impl NodeClass {
    fn implement<T: Speak>(&mut self) {
        self.speak = |o| qom::of_class::<T>(o).speak();
    }
}

trait Speak: Level {
    /// Unless overridden, the parent type's.
    fn speak(&self) -> String {
        let class: &NodeClass = self.base().class().parent_of::<Self>().get().expect("below node");
        (class.speak)(&*self.base().object())
    }
}

/// Stands for `MachineCell`.
#[derive(Default)]
struct Cell<T>(T);

impl<T: Default> State for Cell<T> {
    fn init(_: &Base) -> Self {
        Self(T::default())
    }
    fn register<O: Level>(class: &mut Class, name: &'static str, _: fn(&O) -> &Self) {
        class.edit::<NodeClass>().states.push(name);
    }
}

trait Greeter {
    fn greet(&self) -> String;
}
qom::interface!(dyn Greeter, "greeter");
qom::interface!("tagged");
qom::interface!("tagged-more", parent = "tagged");

#[derive(Object)]
#[qom(name = "node", parent = Base, abstract, class_init = Node::class_init, class_base_init = Node::class_base_init,
      instance_init = Node::instance_init, post_init = Node::post_init)]
struct Node {
    parent: Base,
    log: std::sync::Mutex<Vec<&'static str>>,
}

impl Node {
    fn class_init(c: &mut Class) {
        let _ = c.edit::<NodeClass>();
        c.property(Property::computed::<u32>("answer").getter(|_: &Node| Ok(42u32)).describe("of everything"));
    }
    fn class_base_init(c: &mut Class) {
        c.edit::<NodeClass>().states.push("base");
    }
    fn instance_init(&self) -> Result<()> {
        self.log.lock().unwrap().push("node init");
        Ok(())
    }
    fn post_init(&self) -> Result<()> {
        self.log.lock().unwrap().push("node post");
        self.scope().apply_globals(&*self.object())
    }
}

static DROPPED: AtomicU32 = AtomicU32::new(0);

#[derive(Object)]
#[qom(name = "leaf", parent = Node, methods(NodeClass), interfaces(dyn Greeter, "tagged-more"),
      instance_init = Leaf::instance_init, post_init = Leaf::post_init)]
struct Leaf {
    parent: Node,
    #[property(default = 0x80, desc = "where")]
    io_base: Prop<u16>,
    #[property(name = "x-label", default = "x", live)]
    label: Prop<String>,
    #[property(default = true)]
    on: Prop<bool>,
    #[property(default = OnOffAuto::Auto)]
    acpi: Prop<OnOffAuto>,
    #[property(default = Size(4096))]
    room: Prop<Size>,
    #[property(type = "string")]
    note: Prop<String>,
    #[state]
    regs: Cell<u8>,
}

impl Leaf {
    fn instance_init(&self) -> Result<()> {
        self.log.lock().unwrap().push("leaf init");
        Ok(())
    }
    fn post_init(&self) -> Result<()> {
        self.log.lock().unwrap().push("leaf post");
        Ok(())
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Relaxed);
    }
}

impl Speak for Leaf {
    fn speak(&self) -> String {
        let _ = &self.regs;
        let class: &NodeClass = self.class().parent_of::<Self>().get().expect("below node");
        format!("leaf over {}", (class.speak)(&*self.object()))
    }
}

impl Greeter for Leaf {
    fn greet(&self) -> String {
        format!("{} at {:#x}", self.label.get(), self.io_base.get())
    }
}

#[derive(Object)]
#[qom(name = "quiet", parent = Leaf, methods(NodeClass), class_init = |c: &mut Class| c.set_default("io-base", 0x90))]
struct Quiet {
    parent: Leaf,
}

impl Speak for Quiet {}

struct Variant {
    port: u16,
}

qom::register!(|r| {
    for (name, port) in [("leaf-a", 0x100u16), ("leaf-b", 0x200)] {
        r.add(TypeInfo::of::<Leaf>(name).class_data(Variant { port }).class_init(|c| {
            let port = c.data::<Variant>().expect("given in the table").port;
            c.set_default("io-base", port);
        }));
    }
});

#[test]
fn objects_are_made_in_order_with_their_defaults() {
    let w = World::bare();
    let o = w.object_new("leaf").unwrap();
    let leaf = o.cast::<Leaf>().unwrap();
    assert_eq!(*leaf.log.lock().unwrap(), ["node init", "leaf init", "node post", "leaf post"]);
    assert_eq!((leaf.io_base.get(), leaf.label.get(), leaf.room.get()), (0x80, "x".to_owned(), Size(4096)));
    assert_eq!(o.get("answer").unwrap(), json!(42));
    assert_eq!(o.get("type").unwrap(), json!("leaf"));
}

#[test]
fn casts_reach_every_level_and_interface() {
    let w = World::bare();
    let o = w.object_new("quiet").unwrap();
    assert!(o.cast::<Quiet>().is_some() && o.cast::<Leaf>().is_some() && o.cast::<Node>().is_some());
    assert!(o.cast::<qom::Container>().is_none());
    assert_eq!(o.interface::<dyn Greeter>().unwrap().greet(), "x at 0x90");
    for yes in ["quiet", "leaf", "node", "object", "greeter", "tagged", "tagged-more", "interface"] {
        assert!(o.is_a(yes), "{yes}");
    }
    for no in ["leaf-a", "container", "user-creatable", "nonsense"] {
        assert!(!o.is_a(no), "{no}");
    }
    let leaf = o.cast::<Leaf>().unwrap().this();
    assert_eq!(leaf.with(|l| l.io_base.get()), Some(0x90));
    let strong = leaf.upgrade().unwrap();
    drop(o);
    assert_eq!(strong.greet(), "x at 0x90");
    drop(strong);
    assert!(leaf.upgrade().is_none());
}

#[test]
fn finalize_is_drop() {
    let before = DROPPED.load(Relaxed);
    let w = World::bare();
    let o = w.object_new("leaf").unwrap();
    w.root().add_child("leaf", &o).unwrap();
    drop(o);
    drop(w);
    assert!(DROPPED.load(Relaxed) > before);
}

#[test]
fn methods_chain_through_the_types_parents() {
    let w = World::bare();
    for (ty, says) in [("leaf", "leaf over leaf"), ("quiet", "leaf over quiet"), ("leaf-a", "leaf over leaf-a")] {
        let o = w.object_new(ty).unwrap();
        let class: &NodeClass = o.class().get().unwrap();
        assert_eq!((class.speak)(&*o), says);
    }
}

#[test]
fn class_init_sees_class_data_and_base_init() {
    let w = World::bare();
    for (ty, port) in [("leaf-a", 0x100), ("leaf-b", 0x200), ("leaf", 0x80)] {
        assert_eq!(w.object_new(ty).unwrap().get("io-base").unwrap(), json!(port));
    }
    let states = |ty| Registry::global().class(ty).unwrap().get::<NodeClass>().unwrap().states.clone();
    assert_eq!(states("node"), [""; 0]);
    assert_eq!(states("leaf"), ["base", "regs"]);
    assert_eq!(states("quiet"), ["base", "regs", "base"]);
    let info = Registry::global().class("leaf-b").unwrap().find_property("io-base").unwrap().default().cloned();
    assert_eq!(info, Some(json!(0x200)));
}

#[test]
fn abstract_and_unknown_types_have_no_objects() {
    let w = World::bare();
    assert_eq!(w.object_new("node").unwrap_err().to_string(), "object type 'node' is abstract");
    assert_eq!(w.object_new("greeter").unwrap_err().to_string(), "object type 'greeter' is abstract");
    let e = w.object_new("laef").unwrap_err();
    assert_eq!(e.to_string(), "invalid object type: laef (did you mean 'leaf'?)");
    assert_eq!(e.class(), "GenericError");
}

#[test]
fn types_are_listed_by_name_and_interface() {
    let names = |i, a| Registry::global().list(i, a).iter().map(|t| t.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(Some("greeter"), false), ["leaf", "leaf-a", "leaf-b", "quiet"]);
    assert_eq!(names(Some("node"), true), ["leaf", "leaf-a", "leaf-b", "node", "quiet"]);
    assert_eq!(names(Some("tagged"), true), ["leaf", "leaf-a", "leaf-b", "quiet", "tagged", "tagged-more"]);
    assert!(names(Some("no-such"), true).is_empty());
    let all = names(None, true);
    assert!(all.is_sorted() && all.iter().any(|n| n == "interface"));
    let leaf = Registry::global().get("leaf").unwrap();
    assert_eq!(
        (leaf.parent_name(), leaf.interface_names()),
        (Some("node"), &["greeter".into(), "tagged-more".into()][..])
    );
    assert!(leaf.place().contains("model.rs:"));
}

#[test]
fn types_describe_their_objects_without_a_machine() {
    let describe = |ty| Registry::global().describe(ty, World::bare().scope());
    let leaf = describe("leaf-b").unwrap();
    let find = |n: &str| leaf.iter().find(|p| p.name == n).unwrap();
    assert_eq!((find("io-base").ty.as_str(), find("io-base").default.clone()), ("uint16", Some(json!(0x200))));
    assert_eq!(find("io-base").description.as_deref(), Some("where"));
    assert_eq!((find("acpi").ty.as_str(), find("acpi").values), ("OnOffAuto", &["on", "off", "auto"][..]));
    assert_eq!((find("note").ty.as_str(), find("note").default.clone()), ("string", None));
    assert_eq!((find("answer").description.as_deref(), find("answer").writable), (Some("of everything"), false));
    let node: Vec<_> = describe("node").unwrap().into_iter().map(|p| p.name).collect();
    assert_eq!(node, ["type", "answer"], "an abstract type shows its class");
    assert!(describe("nothing").is_err());
}

mod startup {
    use super::*;
    use qom::{Error, Submit};

    fn build(f: fn(&mut Registry)) -> Error {
        Registry::build(&[Submit { register: f, place: "a.rs:1" }, Submit { register: |_| {}, place: "b.rs:2" }])
            .err()
            .expect("must be refused")
    }

    #[test]
    fn a_name_twice_names_both_places() {
        let one: fn(&mut Registry) = |r| r.add(TypeInfo::of::<Base>("twin"));
        let e =
            Registry::build(&[Submit { register: one, place: "a.rs:1" }, Submit { register: one, place: "b.rs:2" }]);
        assert_eq!(e.err().unwrap().to_string(), "type 'twin' is registered twice: a.rs:1 and b.rs:2");
    }

    #[test]
    fn unknown_parents_and_interfaces_are_refused() {
        let e = build(|r| r.add(TypeInfo::of::<Base>("x").parent("objekt")));
        assert_eq!(e.to_string(), "type 'x' (a.rs:1) has the unknown parent 'objekt' (did you mean 'object'?)");
        let e = build(|r| r.add(TypeInfo::of::<Base>("x").implements("object")));
        assert!(matches!(e, Error::UnknownParent { role: "interface", .. }));
    }

    #[test]
    fn a_cycle_is_refused() {
        let e = build(|r| {
            r.add(TypeInfo::of::<Base>("x").parent("y"));
            r.add(TypeInfo::of::<Base>("y").parent("x"));
        });
        assert_eq!(e.to_string(), "type 'x' (a.rs:1) is its own ancestor");
    }

    #[test]
    fn the_order_of_submissions_cannot_be_seen() {
        let a: fn(&mut Registry) = |r| r.add(TypeInfo::of::<Base>("a"));
        let b: fn(&mut Registry) = |r| r.add(TypeInfo::of::<Base>("b"));
        let ids = |fs: [fn(&mut Registry); 2]| {
            let r = Registry::build(&fs.map(|register| Submit { register, place: "" })).unwrap();
            ["a", "b", "object"].map(|n| r.id(n))
        };
        assert_eq!(ids([a, b]), ids([b, a]));
    }

    #[test]
    fn names_are_kinds() {
        assert_eq!((Leaf::NAME, <dyn Greeter as Kind>::NAME), ("leaf", "greeter"));
    }
}
