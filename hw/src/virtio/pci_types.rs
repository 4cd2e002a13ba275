//! The types of virtio functions: of each device an abstract base, one whose registers the user chooses, one with both kinds, one with
//! the modern ones. Source of the ids: virtio 1.2 §4.1.2.1 and §5; of classes and aliases: QEMU.

use super::pci::{Mode, VirtioPci, VirtioPciClass};
use hw_core::{Category, DeviceClass, PciDeviceClass};
use qom::{Class, OnOffAuto, PropType, Property, TypeInfo};

/// One device.
struct Row {
    /// Type name without `-pci`; also the alias.
    stem: &'static str,
    /// Type of the device behind it.
    backend: &'static str,
    transitional_id: u16,
    class: u16,
    category: Category,
    /// `class` can be chosen.
    class_property: bool,
    /// Default of `vectors`, or how many more than the device has queues.
    vectors: Result<u32, u32>,
    /// Expansion ROM.
    rom: Option<&'static str>,
}

const ROWS: &[Row] = &[
    Row {
        stem: "virtio-9p",
        backend: "virtio-9p-device",
        transitional_id: 0x1009,
        class: 0x0002,
        category: Category::Storage,
        class_property: false,
        vectors: Ok(2),
        rom: None,
    },
    Row {
        stem: "virtio-balloon",
        backend: "virtio-balloon-device",
        transitional_id: 0x1002,
        class: 0x00ff,
        category: Category::Misc,
        class_property: false,
        vectors: Err(1),
        rom: None,
    },
    Row {
        stem: "virtio-blk",
        backend: "virtio-blk-device",
        transitional_id: 0x1001,
        class: 0x0100,
        category: Category::Storage,
        class_property: true,
        vectors: Err(1),
        rom: None,
    },
    Row {
        stem: "virtio-net",
        backend: "virtio-net-device",
        transitional_id: 0x1000,
        class: 0x0200,
        category: Category::Network,
        class_property: false,
        vectors: Err(1),
        rom: Some("efi-virtio.rom"),
    },
    Row {
        stem: "virtio-rng",
        backend: "virtio-rng-device",
        transitional_id: 0x1005,
        class: 0x00ff,
        category: Category::Misc,
        class_property: false,
        vectors: Err(1),
        rom: None,
    },
    Row {
        stem: "virtio-serial",
        backend: "virtio-serial-device",
        transitional_id: 0x1003,
        class: 0x0780,
        category: Category::Input,
        class_property: true,
        vectors: Ok(2),
        rom: None,
    },
    Row {
        stem: "virtio-scsi",
        backend: "virtio-scsi-device",
        transitional_id: 0x1004,
        class: 0x0100,
        category: Category::Storage,
        class_property: false,
        vectors: Err(1),
        rom: None,
    },
];

fn base(c: &mut Class, row: &'static Row) {
    c.edit::<DeviceClass>().categories = vec![row.category];
    let p = c.edit::<PciDeviceClass>();
    (p.class_id, p.optional_romfile) = (row.class, row.rom);
    let v = c.edit::<VirtioPciClass>();
    v.transitional_id = row.transitional_id;
    v.extra_vectors = row.vectors.err().unwrap_or(0);
    v.backend = row.backend;
    c.property(Property::field("ioeventfd", |d: &VirtioPci| &d.ioeventfd).default_value(true));
    c.property(Property::field("vectors", |d: &VirtioPci| &d.vectors).default_value(u32::MAX));
    if let Ok(n) = row.vectors {
        c.set_default("vectors", n);
    }
    if row.class_property {
        c.property(Property::field("class", |d: &VirtioPci| &d.class_code).default_value(0u32));
    }
}

fn chosen(c: &mut Class, row: &'static Row) {
    c.edit::<DeviceClass>().alias = Some(row.stem);
    c.property(
        Property::field("disable-legacy", |d: &VirtioPci| &d.disable_legacy).default_value(OnOffAuto::Auto.to_json()),
    );
    c.property(Property::field("disable-modern", |d: &VirtioPci| &d.disable_modern).default_value(false));
}

qom::register!(|r| {
    for row in ROWS {
        let above = format!("{}-pci-base", row.stem);
        r.add(TypeInfo::of::<VirtioPci>(above.clone()).set_abstract().class_init(move |c| base(c, row)));
        let below = |name: &str, mode: Mode| {
            let info = TypeInfo::of::<VirtioPci>(format!("{}-pci{name}", row.stem)).parent(above.clone());
            info.implements("conventional-pci-device").class_init(move |c| c.edit::<VirtioPciClass>().mode = mode)
        };
        let express = "pci-express-device";
        r.add(below("", Mode::Chosen).implements(express).class_init(move |c| chosen(c, row)));
        r.add(below("-transitional", Mode::Transitional));
        r.add(below("-non-transitional", Mode::Modern).implements(express));
    }
});
