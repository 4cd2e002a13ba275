//! AMD processors.
//! Names, numbers and features as QEMU 11.1 shows them; what a version changes is cumulative.

use super::{AMD, Caches, Model, Version, caches};

/// The models.
#[rustfmt::skip]
pub static MODELS: &[Model] = &[
    Model {
        name: "athlon",
        vendor: AMD, family: 6, model: 2, stepping: 3,
        level: 0x2, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "QEMU Virtual CPU version 2.5+", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr sse sse2 \
            mmxext 3dnowext 3dnow",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "phenom",
        vendor: AMD, family: 16, model: 2, stepping: 3,
        level: 0x5, level_func7: 0, xlevel: 0x8000_001a, xlevel2: 0x0,
        model_id: "AMD Phenom(tm) 9550 Quad-Core Processor", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni monitor cx16 popcnt \
            syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm 3dnowext 3dnow \
            lahf-lm svm abm sse4a \
            npt",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "Opteron_G1",
        vendor: AMD, family: 15, model: 6, stepping: 1,
        level: 0x5, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "AMD Opteron 240 (Gen 1 Class Opteron)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni \
            syscall nx lm",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "Opteron_G2",
        vendor: AMD, family: 15, model: 6, stepping: 1,
        level: 0x5, level_func7: 0, xlevel: 0x8000_000a, xlevel2: 0x0,
        model_id: "AMD Opteron 22xx (Gen 2 Class Opteron)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni cx16 \
            syscall nx lm \
            lahf-lm svm",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "Opteron_G3",
        vendor: AMD, family: 16, model: 2, stepping: 3,
        level: 0x5, level_func7: 0, xlevel: 0x8000_000a, xlevel2: 0x0,
        model_id: "AMD Opteron 23xx (Gen 3 Class Opteron)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni monitor cx16 popcnt \
            syscall nx rdtscp lm \
            lahf-lm svm abm sse4a misalignsse",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "Opteron_G4",
        vendor: AMD, family: 21, model: 1, stepping: 2,
        level: 0xd, level_func7: 0, xlevel: 0x8000_001a, xlevel2: 0x0,
        model_id: "AMD Opteron 62xx class CPU", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 popcnt aes xsave avx \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm svm abm sse4a misalignsse 3dnowprefetch xop fma4 \
            npt nrip-save",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "Opteron_G5",
        vendor: AMD, family: 21, model: 2, stepping: 0,
        level: 0xd, level_func7: 0, xlevel: 0x8000_001a, xlevel2: 0x0,
        model_id: "AMD Opteron 63xx class CPU", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 fma cx16 sse4.1 sse4.2 popcnt aes xsave avx f16c \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm svm abm sse4a misalignsse 3dnowprefetch xop fma4 tbm \
            npt nrip-save",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "EPYC",
        vendor: AMD, family: 23, model: 1, stepping: 2,
        level: 0xd, level_func7: 0, xlevel: 0x8000_001e, xlevel2: 0x0,
        model_id: "AMD EPYC Processor", caches: Caches::Own(&caches::EPYC),
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq monitor ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand \
            fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt sha-ni \
            syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm \
            lahf-lm svm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext \
            npt nrip-save \
            xsaveopt xsavec xgetbv1 \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).alias("EPYC-IBPB").change("+ibpb").set(&[("model-id", "AMD EPYC Processor (with IBPB)")]),
            Version::new(3).change("+perfctr-core +clzero +xsaveerptr +xsaves").set(&[("model-id", "AMD EPYC Processor")]),
            Version::new(4).set(&[("model-id", "AMD EPYC-v4 Processor")]),
            Version::new(5).change("+overflow-recov +succor +lbrv +tsc-scale +vmcb-clean +flushbyasid +pause-filter \
                +pfthreshold +v-vmsave-vmload +vgif").set(&[("model-id", "AMD EPYC-v5 Processor")]).caches(&caches::EPYC_V5),
        ],
    },
    Model {
        name: "EPYC-Rome",
        vendor: AMD, family: 23, model: 49, stepping: 0,
        level: 0xd, level_func7: 0, xlevel: 0x8000_001e, xlevel2: 0x0,
        model_id: "AMD EPYC-Rome Processor", caches: Caches::Own(&caches::EPYC_ROME),
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq monitor ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand \
            fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt clwb sha-ni \
            umip rdpid \
            syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm \
            lahf-lm svm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext perfctr-core \
            clzero xsaveerptr wbnoinvd ibpb amd-stibp \
            npt nrip-save \
            xsaveopt xsavec xgetbv1 xsaves \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).change("+ibrs +amd-ssbd"),
            Version::new(3).set(&[("model-id", "AMD EPYC-Rome-v3 Processor")]),
            Version::new(4).change("-xsaves").set(&[("model-id", "AMD EPYC-Rome-v4 Processor (no XSAVES)")]),
            Version::new(5).change("+overflow-recov +succor +lbrv +tsc-scale +vmcb-clean +flushbyasid +pause-filter \
                +pfthreshold +v-vmsave-vmload +vgif").set(&[("model-id", "AMD EPYC-Rome-v5 Processor")]).caches(&caches::EPYC_ROME_V5),
        ],
    },
    Model {
        name: "EPYC-Milan",
        vendor: AMD, family: 25, model: 1, stepping: 1,
        level: 0xd, level_func7: 0, xlevel: 0x8000_001e, xlevel2: 0x0,
        model_id: "AMD EPYC-Milan Processor", caches: Caches::Own(&caches::EPYC_MILAN),
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq monitor ssse3 fma cx16 pcid sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand \
            fsgsbase bmi1 avx2 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb sha-ni \
            umip pku rdpid \
            fsrm \
            syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm \
            lahf-lm svm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext perfctr-core \
            clzero xsaveerptr wbnoinvd ibpb ibrs amd-stibp amd-ssbd \
            npt nrip-save svme-addr-chk \
            xsaveopt xsavec xgetbv1 xsaves \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).change("+vaes +vpclmulqdq +stibp-always-on +amd-psfd +no-nested-data-bp +lfence-always-serializing \
                +null-sel-clr-base").set(&[("xlevel", "0x80000021"), ("model-id", "AMD EPYC-Milan-v2 Processor")]),
            Version::new(3).change("+overflow-recov +succor +lbrv +tsc-scale +vmcb-clean +flushbyasid +pause-filter \
                +pfthreshold +v-vmsave-vmload +vgif").set(&[("model-id", "AMD EPYC-Milan-v3 Processor")]).caches(&caches::EPYC_MILAN_V3),
            Version::new(4).change("+gmet").set(&[("model-id", "AMD EPYC-Milan-v4 Processor")]),
        ],
    },
    Model {
        name: "EPYC-Genoa",
        vendor: AMD, family: 25, model: 17, stepping: 0,
        level: 0xd, level_func7: 1, xlevel: 0x8000_0022, xlevel2: 0x0,
        model_id: "AMD EPYC-Genoa Processor", caches: Caches::Own(&caches::EPYC_GENOA),
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq monitor ssse3 fma cx16 pcid sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand \
            fsgsbase bmi1 avx2 smep bmi2 erms invpcid avx512f avx512dq rdseed adx smap avx512ifma clflushopt \
            clwb avx512cd sha-ni avx512bw avx512vl \
            avx512vbmi umip pku avx512vbmi2 gfni vaes vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq la57 \
            rdpid \
            fsrm \
            avx512-bf16 \
            syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm \
            lahf-lm svm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext perfctr-core \
            clzero xsaveerptr wbnoinvd ibpb ibrs amd-stibp stibp-always-on amd-ssbd amd-psfd \
            no-nested-data-bp lfence-always-serializing null-sel-clr-base auto-ibrs \
            npt nrip-save vnmi svme-addr-chk \
            xsaveopt xsavec xgetbv1 xsaves \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).change("+overflow-recov +succor +fs-gs-base-ns +perfmon-v2 +lbrv +tsc-scale +vmcb-clean \
                +flushbyasid +pause-filter +pfthreshold +v-vmsave-vmload +vgif").set(&[("model-id", "AMD EPYC-Genoa-v2 Processor")]).caches(&caches::EPYC_GENOA_V2),
            Version::new(3).change("+gmet").set(&[("model-id", "AMD EPYC-Genoa-v3 Processor")]),
        ],
    },
    Model {
        name: "EPYC-Turin",
        vendor: AMD, family: 26, model: 0, stepping: 0,
        level: 0xd, level_func7: 1, xlevel: 0x8000_0022, xlevel2: 0x0,
        model_id: "AMD EPYC-Turin Processor", caches: Caches::Own(&caches::EPYC_TURIN),
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq monitor ssse3 fma cx16 pcid sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand \
            fsgsbase bmi1 avx2 smep bmi2 erms invpcid avx512f avx512dq rdseed adx smap avx512ifma clflushopt \
            clwb avx512cd sha-ni avx512bw avx512vl \
            avx512vbmi umip pku avx512vbmi2 gfni vaes vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq la57 \
            rdpid movdiri movdir64b \
            fsrm avx512-vp2intersect \
            avx-vnni avx512-bf16 \
            syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm \
            lahf-lm svm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext perfctr-core \
            overflow-recov succor \
            clzero xsaveerptr wbnoinvd ibpb ibrs amd-stibp stibp-always-on amd-ssbd amd-psfd \
            no-nested-data-bp fs-gs-base-ns lfence-always-serializing null-sel-clr-base auto-ibrs prefetchi sbpb \
            ibpb-brtype srso-user-kernel-no \
            perfmon-v2 \
            npt lbrv nrip-save tsc-scale vmcb-clean flushbyasid pause-filter pfthreshold v-vmsave-vmload vgif \
            vnmi svme-addr-chk \
            xsaveopt xsavec xgetbv1 xsaves \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).change("+gmet").set(&[("model-id", "AMD EPYC-Turin-v2 Processor")]),
        ],
    },
];
