//! Hygon processors.
//! Names, numbers and features as QEMU 11.1 shows them; what a version changes is cumulative.

use super::{Caches, HYGON, Model, Version, caches};

/// The models.
#[rustfmt::skip]
pub static MODELS: &[Model] = &[
    Model {
        name: "Dhyana",
        vendor: HYGON, family: 24, model: 0, stepping: 1,
        level: 0xd, level_func7: 0, xlevel: 0x8000_001e, xlevel2: 0x0,
        model_id: "Hygon Dhyana Processor", caches: Caches::Own(&caches::DHYANA),
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni monitor ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt xsave avx f16c rdrand \
            fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt \
            syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm \
            lahf-lm svm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext \
            ibpb \
            npt nrip-save \
            xsaveopt xsavec xgetbv1 \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).change("+xsaves"),
        ],
    },
];
