//! Composition tree, globals, user-creatable objects.

use qom::{Base, Error, Global, Input, ObjRef, Object, Prop, Rank, Result, UserCreatable, World};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

#[derive(Object)]
#[qom(name = "g-device", parent = Base, abstract, post_init = GDevice::post_init)]
struct GDevice {
    parent: Base,
    #[property]
    label: Prop<String>,
}

impl GDevice {
    fn post_init(&self) -> Result<()> {
        self.scope().apply_globals(&*self.object())
    }
}

#[derive(Object)]
#[qom(name = "g-nic", parent = GDevice)]
struct GNic {
    parent: GDevice,
    #[property(default = 1)]
    queues: Prop<u8>,
}

#[derive(Object)]
#[qom(name = "g-disk", parent = GDevice)]
struct GDisk {
    parent: GDevice,
}

#[derive(Object)]
#[qom(name = "g-backend", parent = Base, interfaces(dyn UserCreatable))]
struct GBackend {
    parent: Base,
    #[property]
    size: Prop<qom::Size>,
    busy: AtomicBool,
}

impl UserCreatable for GBackend {
    fn complete(&self) -> Result<()> {
        if self.size.get().0 == 0 {
            return Err(Error::generic("size must not be 0"));
        }
        Ok(())
    }
    fn can_be_deleted(&self) -> bool {
        !self.busy.load(SeqCst)
    }
}

fn container(w: &World) -> ObjRef {
    w.object_new("container").unwrap()
}

#[test]
fn paths_are_canonical_and_resolve() {
    let w = World::bare();
    let deep = w.container("/machine/unattached/a/b").unwrap();
    assert_eq!((deep.path().as_str(), w.root().path().as_str()), ("/machine/unattached/a/b", "/"));
    assert!(Arc::ptr_eq(&w.resolve("/machine/unattached/a/b").unwrap(), &deep));
    assert!(Arc::ptr_eq(&w.resolve("/machine//unattached/a/b/").unwrap(), &deep));
    assert!(Arc::ptr_eq(&w.resolve("/").unwrap(), w.root()));
    assert!(Arc::ptr_eq(&w.resolve("a/b").unwrap(), &deep));
    for none in ["/machine/nothing", "nothing", "", "/a/b"] {
        let e = w.resolve(none).unwrap_err();
        assert_eq!((e.class(), e.to_string()), ("DeviceNotFound", format!("Device '{none}' not found")));
    }
    assert_eq!(container(&w).path(), "", "outside the tree");
}

#[test]
fn a_partial_path_must_be_unique_among_its_type() {
    let w = World::bare();
    let x = w.container("/one/x").unwrap();
    let nic = w.object_new("g-nic").unwrap();
    w.container("/two").unwrap().add_child("x", &nic).unwrap();
    assert_eq!(w.resolve("x").unwrap_err().to_string(), "Path 'x' does not uniquely identify an object");
    assert!(Arc::ptr_eq(&w.resolve_type("x", "g-nic").unwrap(), &nic));
    assert!(Arc::ptr_eq(&w.resolve_type("x", "container").unwrap(), &x));
    assert!(w.resolve_type("/two/x", "container").is_err());
}

#[test]
fn numbered_names_take_the_first_free_one() {
    let w = World::bare();
    let names: Vec<_> = (0..3).map(|_| w.root().add_child("device[*]", &container(&w)).unwrap()).collect();
    assert_eq!(names.iter().map(|n| &**n).collect::<Vec<_>>(), ["device[0]", "device[1]", "device[2]"]);
    w.resolve("/device[1]").unwrap().unparent();
    assert_eq!(&*w.root().add_child("device[*]", &container(&w)).unwrap(), "device[1]");
}

#[test]
fn a_child_has_one_parent_and_one_name() {
    let w = World::bare();
    let c = container(&w);
    w.root().add_child("c", &c).unwrap();
    assert_eq!(w.root().add_child("d", &c).unwrap_err().to_string(), "'/c' has a parent");
    assert_eq!(
        w.root().add_child("c", &container(&w)).unwrap_err().to_string(),
        "attempt to add duplicate property 'c' to object (type 'container')"
    );
    assert!(w.root().add_child("type", &container(&w)).is_err(), "a class property's name");
    assert!(w.root().add_child("a/b", &container(&w)).is_err() && w.root().add_child("", &container(&w)).is_err());
    let top = container(&w);
    top.add_child("x", &{ container(&w) }).unwrap();
    assert!(top.child("x").unwrap().add_child("y", &top).is_err(), "its own descendant");
    assert!(top.add_child("y", &top).is_err(), "itself");
    c.unparent().unwrap();
    assert!(c.unparent().is_none() && c.parent().is_none());
    w.root().add_child("d", &c).unwrap();
}

#[test]
fn children_go_with_their_parent_and_keep_their_order() {
    let w = World::bare();
    let a = w.container("/a").unwrap();
    for n in ["z", "y", "x"] {
        a.add_child(n, &container(&w)).unwrap();
    }
    let mut seen = Vec::new();
    w.root().walk(&mut |o| seen.push(o.path()));
    assert_eq!(seen, ["/a/z", "/a/y", "/a/x", "/a"]);
    let x = Arc::downgrade(&a.child("x").unwrap());
    a.unparent();
    drop(a);
    assert!(x.upgrade().is_none());
}

#[test]
fn worlds_share_nothing_and_leave_nothing() {
    let (w1, w2) = (World::bare(), World::new(Arc::new(7u32)));
    w1.container("/only").unwrap();
    assert!(w2.resolve("/only").is_err());
    assert_eq!((w2.ext::<u32>(), w1.ext::<u32>(), w2.ext_arc::<u32>().as_deref()), (Some(&7), None, Some(&7)));
    let (scope, root) = (Arc::downgrade(w1.scope()), Arc::downgrade(w1.root()));
    let kept = w1.resolve("/only").unwrap();
    drop(w1);
    assert!(root.upgrade().is_none() && scope.upgrade().is_some());
    assert_eq!((kept.path().as_str(), kept.scope().root().children().len()), ("", 0));
    drop(kept);
    assert!(scope.upgrade().is_none());
}

#[test]
fn later_ranks_and_later_globals_win() {
    let w = World::bare();
    w.add_global(Global::new(Rank::User, "g-device", "label", "user on the parent"));
    w.add_global(Global::new(Rank::Machine, "g-nic", "label", "machine"));
    w.add_global(Global::new(Rank::Accel, "g-nic", "label", "accel"));
    w.add_global(Global::new(Rank::Machine, "g-nic", "queues", "2"));
    w.add_global(Global::new(Rank::Machine, "g-nic", "queues", "0x3"));
    let nic = w.object_new("g-nic").unwrap();
    assert_eq!((nic.get("label").unwrap(), nic.get("queues").unwrap()), (json!("user on the parent"), json!(3)));
    let disk = w.object_new("g-disk").unwrap();
    assert_eq!(disk.get("label").unwrap(), json!("user on the parent"));
    assert_eq!(World::bare().object_new("g-nic").unwrap().get("queues").unwrap(), json!(1));
    assert!(w.unused_globals().is_empty());
}

#[test]
fn globals_that_do_not_fit() {
    let w = World::bare();
    w.add_global(Global::new(Rank::Machine, "g-nic", "no-such", "1").optional());
    w.object_new("g-nic").unwrap();
    w.add_global(Global::new(Rank::User, "g-disk", "no-such", "1"));
    w.add_global(Global::new(Rank::User, "no-driver", "x", "1"));
    w.add_global(Global::new(Rank::Machine, "g-disk", "other", "1").optional());
    assert_eq!(w.unused_globals(), ["global g-disk.no-such=1 not used", "global no-driver.x has invalid class name"]);
    let e = w.object_new("g-disk").unwrap_err();
    assert_eq!(e.to_string(), "can't apply global g-disk.no-such=1: Property 'g-disk.no-such' not found");
    assert_eq!(w.unused_globals(), ["global no-driver.x has invalid class name"]);
}

#[test]
fn user_creatable_objects_come_and_go() {
    let w = World::bare();
    let props = |v: serde_json::Value| v.as_object().cloned().unwrap();
    let o = w.object_add("g-backend", "mem0", &props(json!({"size": 4096})), false).unwrap();
    assert_eq!(o.path(), "/objects/mem0");
    w.object_add("g-backend", "mem1", &props(json!({"size": "1G"})), true).unwrap();
    let before = w.resolve("/objects").unwrap().children().len();
    for (ty, id, p, text, says) in [
        (
            "g-backend",
            "mem0",
            json!({"size": 1}),
            false,
            "attempt to add duplicate property 'mem0' to object (type 'container')",
        ),
        ("g-backend", "m", json!({"size": "1G"}), false, "Invalid parameter type for 'size', expected: integer"),
        ("g-backend", "m", json!({"siez": 1}), false, "Property 'g-backend.siez' not found (did you mean 'size'?)"),
        ("g-backend", "m", json!({}), false, "size must not be 0"),
        ("g-nic", "m", json!({}), false, "object type 'g-nic' isn't supported by object-add"),
        ("g-backnd", "m", json!({}), true, "invalid object type: g-backnd (did you mean 'g-backend'?)"),
        ("user-creatable", "m", json!({}), true, "object type 'user-creatable' is abstract"),
    ] {
        assert_eq!(w.object_add(ty, id, &props(p), text).unwrap_err().to_string(), says);
    }
    for id in ["", "1x", "a b", "a/b", "-"] {
        assert!(w.object_add("g-backend", id, &props(json!({"size": 1})), false).is_err(), "{id}");
    }
    assert_eq!(w.resolve("/objects").unwrap().children().len(), before, "nothing half-made is left");
    let backend = o.cast::<GBackend>().unwrap();
    backend.busy.store(true, SeqCst);
    assert_eq!(w.object_del("mem0").unwrap_err().to_string(), "object 'mem0' is in use, can not be deleted");
    backend.busy.store(false, SeqCst);
    w.object_del("mem0").unwrap();
    assert_eq!(w.object_del("mem0").unwrap_err().to_string(), "object 'mem0' not found");
}

#[test]
fn many_threads_may_walk_while_others_change_the_tree() {
    let w = World::bare();
    let top = w.container("/machine").unwrap();
    std::thread::scope(|s| {
        for t in 0..2 {
            let (w, top) = (&w, &top);
            s.spawn(move || {
                for i in 0..300 {
                    let o = w.object_new("g-nic").unwrap();
                    let name = top.add_child("nic[*]", &o).unwrap();
                    assert_eq!(o.path(), format!("/machine/{name}"));
                    o.set_input("queues", Input::Text("2")).unwrap();
                    let _ = top.get(&name).map(|v| assert_eq!(v, json!(o.path())));
                    assert!(o.unparent().is_some(), "{t} {i}");
                }
            });
        }
        let mut seen = 0;
        for _ in 0..300 {
            w.root().walk(&mut |_| seen += 1);
        }
        assert!(seen >= 300);
    });
    assert!(top.children().is_empty());
}
