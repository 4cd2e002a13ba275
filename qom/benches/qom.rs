//! The four figures the object model is held to: checked cast ≤ 4 ns, property by name ≤ 50 ns, create and drop an object
//! of 20 properties ≤ 0.5 µs with 400 globals of other types, canonical path of depth 5 ≤ 200 ns. Where a host is too slow for
//! that, at most 1.2 times the plainest model of the same design (`plain`), which runs alongside: `cargo bench -p qom`.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

mod plain;

use criterion::{Criterion, criterion_group, criterion_main};
use qom::{Base, Global, Object, Prop, Rank, Result, TypeInfo, World};
use std::hint::black_box;

trait Face {
    fn number(&self) -> u32;
}
qom::interface!(dyn Face, "b-face");

#[derive(Object)]
#[qom(name = "b-device", parent = Base, abstract, post_init = Device::post_init)]
struct Device {
    parent: Base,
}

impl Device {
    fn post_init(&self) -> Result<()> {
        self.scope().apply_globals(&*self.object())
    }
}

#[derive(Object)]
#[qom(name = "b-middle", parent = Device, abstract)]
struct Middle {
    parent: Device,
}

#[derive(Object)]
#[qom(name = "b-twenty", parent = Middle, interfaces(dyn Face))]
struct Twenty {
    parent: Middle,
    #[property(default = 1)]
    p0: Prop<u32>,
    #[property(default = 1)]
    p1: Prop<u32>,
    #[property(default = 1)]
    p2: Prop<u32>,
    #[property(default = 1)]
    p3: Prop<u32>,
    #[property(default = true)]
    p4: Prop<bool>,
    #[property(default = true)]
    p5: Prop<bool>,
    #[property(default = true)]
    p6: Prop<bool>,
    #[property(default = true)]
    p7: Prop<bool>,
    #[property(default = 1)]
    p8: Prop<u64>,
    #[property(default = 1)]
    p9: Prop<u64>,
    #[property(default = 1)]
    p10: Prop<u64>,
    #[property(default = 1)]
    p11: Prop<u64>,
    #[property]
    p12: Prop<String>,
    #[property]
    p13: Prop<String>,
    #[property]
    p14: Prop<String>,
    #[property(default = "text")]
    p15: Prop<String>,
    #[property(default = qom::OnOffAuto::On)]
    p16: Prop<qom::OnOffAuto>,
    #[property(default = qom::Size(4096))]
    p17: Prop<qom::Size>,
    #[property(default = 1)]
    p18: Prop<u8>,
    #[property(default = 1)]
    p19: Prop<u16>,
}

impl Face for Twenty {
    fn number(&self) -> u32 {
        self.p0.get()
    }
}

qom::register!(|r| (0..40).for_each(|i| r.add(TypeInfo::of::<Twenty>(format!("b-other-{i}")))));

fn objects(c: &mut Criterion) {
    let w = World::bare();
    for i in 0..400 {
        w.add_global(Global::new(Rank::Machine, format!("b-other-{}", i % 40), "p0", "7"));
    }
    assert_eq!(w.object_new("b-other-3").unwrap().get("p0").unwrap(), 7);
    let o = w.object_new("b-twenty").unwrap();

    c.bench_function("cast to own level", |b| b.iter(|| black_box(&o).cast::<Twenty>().unwrap().p0.get()));
    c.bench_function("cast to an ancestor", |b| b.iter(|| std::ptr::from_ref(black_box(&o).cast::<Device>().unwrap())));
    c.bench_function("failing cast", |b| b.iter(|| black_box(&o).cast::<qom::Container>().is_none()));
    c.bench_function("cast to an interface", |b| b.iter(|| black_box(&o).interface::<dyn Face>().unwrap().number()));
    c.bench_function("get by name: integer", |b| b.iter(|| black_box(&o).get(black_box("p9")).unwrap()));
    c.bench_function("get by name: enum", |b| b.iter(|| black_box(&o).get(black_box("p16")).unwrap()));
    c.bench_function("get by name: string", |b| b.iter(|| black_box(&o).get(black_box("p15")).unwrap()));
    c.bench_function("set by name: text", |b| b.iter(|| black_box(&o).set_str(black_box("p9"), "12").unwrap()));
    c.bench_function("create and drop, 20 properties, 400 globals", |b| {
        b.iter(|| w.object_new(black_box("b-twenty")).unwrap());
    });
    let deep = w.container("/machine/peripheral/one/two").unwrap();
    deep.add_child("leaf", &o).unwrap();
    assert_eq!(o.path(), "/machine/peripheral/one/two/leaf");
    c.bench_function("canonical path, depth 5", |b| b.iter(|| black_box(&o).path()));
    c.bench_function("resolve, depth 5", |b| {
        b.iter(|| w.resolve(black_box("/machine/peripheral/one/two/leaf")).unwrap());
    });
}

criterion_group!(benches, objects, plain::objects);
criterion_main!(benches);
