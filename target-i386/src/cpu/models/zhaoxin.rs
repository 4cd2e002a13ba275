//! Zhaoxin processors.
//! Names, numbers and features as QEMU 11.1 shows them; what a version changes is cumulative.

use super::{CENTAUR, Caches, Model, Version, caches};

/// The models.
#[rustfmt::skip]
pub static MODELS: &[Model] = &[
    Model {
        name: "YongFeng",
        vendor: CENTAUR, family: 7, model: 11, stepping: 3,
        level: 0x1f, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0xc000_0001,
        model_id: "Zhaoxin YongFeng Processor", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush acpi mmx fxsr sse sse2 \
            ss \
            pni pclmulqdq monitor ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave \
            avx f16c rdrand \
            fsgsbase bmi1 avx2 smep bmi2 invpcid rdseed adx smap sha-ni \
            umip pku rdpid \
            spec-ctrl arch-capabilities \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm abm 3dnowprefetch \
            invtsc \
            xstore xstore-en xcrypt xcrypt-en ace2 phe phe-en pmm pmm-en \
            xsaveopt \
            rdctl-no skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no",
        versions: &[
            Version::new(1),
            Version::new(2).set(&[("model", "91")]),
            Version::new(3).set(&[("x-force-cpuid-0x1f", "on")]).caches(&caches::YONGFENG),
        ],
    },
];
