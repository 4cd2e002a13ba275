//! QEMU's own models: processors that no vendor made.
//! Names, numbers and features as QEMU 11.1 shows them; what a version changes is cumulative.

use super::{AMD, Caches, INTEL, Model, Version};

/// The models.
#[rustfmt::skip]
pub static MODELS: &[Model] = &[
    Model {
        name: "qemu64",
        vendor: AMD, family: 15, model: 107, stepping: 1,
        level: 0xd, level_func7: 0, xlevel: 0x8000_000a, xlevel2: 0x0,
        model_id: "QEMU Virtual CPU version 2.5+", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni cx16 \
            syscall nx lm \
            lahf-lm svm",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "qemu32",
        vendor: INTEL, family: 6, model: 6, stepping: 3,
        level: 0x4, level_func7: 0, xlevel: 0x8000_0004, xlevel2: 0x0,
        model_id: "QEMU Virtual CPU version 2.5+", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat mmx fxsr sse sse2 \
            pni",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "kvm64",
        vendor: INTEL, family: 15, model: 6, stepping: 1,
        level: 0xd, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Common KVM processor", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni cx16 \
            syscall nx lm",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "kvm32",
        vendor: INTEL, family: 15, model: 6, stepping: 1,
        level: 0x5, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Common 32-bit KVM processor", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni",
        versions: &[
            Version::new(1),
        ],
    },
];
