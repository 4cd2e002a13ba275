//! The plainest model of the same design, to compare with: casts by `TypeId` through the levels, a record per property found
//! by name, weak parents, strong children, one table of globals. It lacks what the object model does besides: classes of types,
//! defaults, freezing, aliases, links, checks of names, numbered names, cycles.

use criterion::Criterion;
use indexmap::IndexMap;
use parking_lot::RwLock;
use rustc_hash::FxBuildHasher;
use serde_json::Value;
use std::any::{Any, TypeId};
use std::hint::black_box;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

type Map<K, V> = IndexMap<K, V, FxBuildHasher>;
type ObjRef = Arc<dyn Object>;
/// The parent, and the name it knows the object by.
type Place = (Weak<dyn Object>, Arc<str>);
type Getter = Box<dyn Fn(&dyn Object) -> Value + Send + Sync>;

trait Object: Any + Send + Sync {
    fn base(&self) -> &Base;
    fn level(&self, id: TypeId) -> Option<&dyn Any>;
}

struct Class {
    ids: Vec<u32>,
    properties: Map<String, Arc<Getter>>,
}

struct Base {
    class: &'static Class,
    this: Weak<dyn Object>,
    place: RwLock<Option<Place>>,
    children: RwLock<Map<Arc<str>, ObjRef>>,
}

struct Device {
    parent: Base,
}

struct Middle {
    parent: Device,
}

struct Twenty {
    parent: Middle,
    integers: [AtomicU64; 16],
    strings: [RwLock<String>; 3],
    choice: AtomicU8,
}

impl Object for Base {
    fn base(&self) -> &Base {
        self
    }
    fn level(&self, id: TypeId) -> Option<&dyn Any> {
        (id == TypeId::of::<Self>()).then_some(self as &dyn Any)
    }
}

macro_rules! levels {
    ($($t:ty)*) => { $(
        impl Object for $t {
            fn base(&self) -> &Base {
                self.parent.base()
            }
            fn level(&self, id: TypeId) -> Option<&dyn Any> {
                if id == TypeId::of::<Self>() { Some(self) } else { self.parent.level(id) }
            }
        }
    )* };
}
levels!(Device Middle Twenty);

impl dyn Object {
    fn cast<T: Any>(&self) -> Option<&T> {
        self.level(TypeId::of::<T>())?.downcast_ref()
    }

    fn find(&self, name: &str) -> Result<Arc<Getter>, String> {
        self.base().class.properties.get(name).cloned().ok_or_else(|| format!("Property '{name}' not found"))
    }

    fn get(&self, name: &str) -> Result<Value, String> {
        Ok((self.find(name)?)(self))
    }

    fn add(&self, name: &str, child: &ObjRef) {
        let name: Arc<str> = name.into();
        *child.base().place.write() = Some((self.base().this.clone(), name.clone()));
        self.base().children.write().insert(name, child.clone());
    }

    fn path(&self) -> String {
        let up = self.base().place.read().as_ref().and_then(|(up, name)| Some((up.upgrade()?, name.clone())));
        up.map_or_else(String::new, |(up, name)| format!("{}/{name}", up.path()))
    }

    fn resolve(self: &Arc<Self>, path: &str) -> Option<ObjRef> {
        let mut at = self.clone();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            let child = at.base().children.read().get(part).cloned();
            at = child?;
        }
        Some(at)
    }
}

fn base(class: &'static Class, this: Weak<dyn Object>) -> Base {
    Base { class, this, place: RwLock::default(), children: RwLock::default() }
}

fn folder(class: &'static Class) -> ObjRef {
    Arc::new_cyclic(|this: &Weak<Base>| base(class, this.clone()))
}

fn create(class: &'static Class, globals: &RwLock<Vec<(u32, &str)>>) -> ObjRef {
    let o: ObjRef = Arc::new_cyclic(|this: &Weak<Twenty>| Twenty {
        parent: Middle { parent: Device { parent: base(class, this.clone()) } },
        integers: std::array::from_fn(|_| AtomicU64::new(1)),
        strings: std::array::from_fn(|i| RwLock::new(if i == 0 { "text".into() } else { String::new() })),
        choice: AtomicU8::new(0),
    });
    for (driver, name) in globals.read().iter() {
        if class.ids.contains(driver) {
            black_box(o.find(name).is_ok());
        }
    }
    o
}

fn own(o: &dyn Object) -> &Twenty {
    o.cast().expect("a Twenty")
}

fn class() -> &'static Class {
    let mut properties: Map<String, Arc<Getter>> = Map::default();
    for i in 0..16 {
        let get = move |o: &dyn Object| own(o).integers[i].load(Ordering::Relaxed).into();
        properties.insert(format!("p{i}"), Arc::new(Box::new(get)));
    }
    for i in 0..3 {
        let get = move |o: &dyn Object| own(o).strings[i].read().as_str().into();
        properties.insert(format!("p{}", 16 + i), Arc::new(Box::new(get)));
    }
    let get = |o: &dyn Object| ["on", "off", "auto"][usize::from(own(o).choice.load(Ordering::Relaxed))].into();
    properties.insert("p19".to_owned(), Arc::new(Box::new(get)));
    Box::leak(Box::new(Class { ids: vec![1, 2, 3], properties }))
}

pub fn objects(c: &mut Criterion) {
    let class = class();
    let globals = RwLock::new((0..400).map(|i| (10 + i % 40, "p0")).collect());
    let o = create(class, &globals);
    assert!(o.cast::<Middle>().is_some());

    c.bench_function("plain: cast to own level", |b| {
        b.iter(|| black_box(&o).cast::<Twenty>().unwrap().integers[0].load(Ordering::Relaxed))
    });
    c.bench_function("plain: cast to an ancestor", |b| {
        b.iter(|| std::ptr::from_ref(black_box(&o).cast::<Device>().unwrap()));
    });
    c.bench_function("plain: failing cast", |b| b.iter(|| black_box(&o).cast::<Class>().is_none()));
    c.bench_function("plain: get by name: integer", |b| b.iter(|| black_box(&o).get(black_box("p9")).unwrap()));
    c.bench_function("plain: get by name: enum", |b| b.iter(|| black_box(&o).get(black_box("p19")).unwrap()));
    c.bench_function("plain: get by name: string", |b| b.iter(|| black_box(&o).get(black_box("p16")).unwrap()));
    c.bench_function("plain: create and drop, 20 properties, 400 globals", |b| {
        b.iter(|| create(black_box(class), &globals));
    });
    let root = folder(class);
    let mut at = root.clone();
    for name in ["machine", "peripheral", "one", "two"] {
        let next = folder(class);
        at.add(name, &next);
        at = next;
    }
    at.add("leaf", &o);
    assert_eq!(o.path(), "/machine/peripheral/one/two/leaf");
    c.bench_function("plain: canonical path, depth 5", |b| b.iter(|| black_box(&o).path()));
    c.bench_function("plain: resolve, depth 5", |b| {
        b.iter(|| root.resolve(black_box("/machine/peripheral/one/two/leaf")).unwrap());
    });
}
