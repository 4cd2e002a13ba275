//! Intel processors.
//! Names, numbers and features as QEMU 11.1 shows them; what a version changes is cumulative.

use super::{Caches, INTEL, Model, Version, caches};

/// The models.
#[rustfmt::skip]
pub static MODELS: &[Model] = &[
    Model {
        name: "486",
        vendor: INTEL, family: 4, model: 8, stepping: 0,
        level: 0x1, level_func7: 0, xlevel: 0x0, xlevel2: 0x0,
        model_id: "", caches: Caches::Descriptors,
        features: "fpu pse",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "pentium",
        vendor: INTEL, family: 5, model: 4, stepping: 3,
        level: 0x1, level_func7: 0, xlevel: 0x0, xlevel2: 0x0,
        model_id: "", caches: Caches::Descriptors,
        features: "fpu de pse tsc msr mce cx8 apic mmx",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "pentium2",
        vendor: INTEL, family: 6, model: 5, stepping: 2,
        level: 0x2, level_func7: 0, xlevel: 0x0, xlevel2: 0x0,
        model_id: "", caches: Caches::Descriptors,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "pentium3",
        vendor: INTEL, family: 6, model: 7, stepping: 3,
        level: 0x3, level_func7: 0, xlevel: 0x0, xlevel2: 0x0,
        model_id: "", caches: Caches::Descriptors,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr sse",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "coreduo",
        vendor: INTEL, family: 6, model: 14, stepping: 8,
        level: 0xa, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Genuine Intel(R) CPU           T2600  @ 2.16GHz", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush acpi mmx fxsr sse sse2 ss \
            pni monitor \
            nx",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "core2duo",
        vendor: INTEL, family: 6, model: 15, stepping: 11,
        level: 0xa, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush acpi mmx fxsr sse sse2 \
            ss \
            pni monitor ssse3 cx16 \
            syscall nx lm \
            lahf-lm",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "n270",
        vendor: INTEL, family: 6, model: 28, stepping: 2,
        level: 0xa, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel(R) Atom(TM) CPU N270   @ 1.60GHz", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush acpi mmx fxsr sse sse2 ss \
            pni monitor ssse3 movbe \
            nx \
            lahf-lm",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "Conroe",
        vendor: INTEL, family: 6, model: 15, stepping: 3,
        level: 0xa, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Celeron_4x0 (Conroe/Merom Class Core 2)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni ssse3 \
            syscall nx lm \
            lahf-lm",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "Penryn",
        vendor: INTEL, family: 6, model: 23, stepping: 3,
        level: 0xa, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Core 2 Duo P9xxx (Penryn Class Core 2)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni ssse3 cx16 sse4.1 \
            syscall nx lm \
            lahf-lm",
        versions: &[
            Version::new(1),
        ],
    },
    Model {
        name: "Nehalem",
        vendor: INTEL, family: 6, model: 26, stepping: 3,
        level: 0xb, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Core i7 9xx (Nehalem Class Core i7)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni ssse3 cx16 sse4.1 sse4.2 popcnt \
            syscall nx lm \
            lahf-lm",
        versions: &[
            Version::new(1),
            Version::new(2).alias("Nehalem-IBRS").change("+spec-ctrl").set(&[("model-id", "Intel Core i7 9xx (Nehalem Core i7, IBRS update)")]),
        ],
    },
    Model {
        name: "Westmere",
        vendor: INTEL, family: 6, model: 44, stepping: 1,
        level: 0xb, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Westmere E56xx/L56xx/X56xx (Nehalem-C)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 popcnt aes \
            syscall nx lm \
            lahf-lm \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).alias("Westmere-IBRS").change("+spec-ctrl").set(&[("model-id", "Westmere E56xx/L56xx/X56xx (IBRS update)")]),
        ],
    },
    Model {
        name: "SandyBridge",
        vendor: INTEL, family: 6, model: 42, stepping: 1,
        level: 0xd, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Xeon E312xx (Sandy Bridge)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 x2apic popcnt tsc-deadline aes xsave avx \
            syscall nx rdtscp lm \
            lahf-lm \
            xsaveopt \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).alias("SandyBridge-IBRS").change("+spec-ctrl").set(&[("model-id", "Intel Xeon E312xx (Sandy Bridge, IBRS update)")]),
        ],
    },
    Model {
        name: "IvyBridge",
        vendor: INTEL, family: 6, model: 58, stepping: 9,
        level: 0xd, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Xeon E3-12xx v2 (Ivy Bridge)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 x2apic popcnt tsc-deadline aes xsave avx f16c rdrand \
            fsgsbase smep erms \
            syscall nx rdtscp lm \
            lahf-lm \
            xsaveopt \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).alias("IvyBridge-IBRS").change("+spec-ctrl").set(&[("model-id", "Intel Xeon E3-12xx v2 (Ivy Bridge, IBRS)")]),
        ],
    },
    Model {
        name: "Haswell",
        vendor: INTEL, family: 6, model: 60, stepping: 4,
        level: 0xd, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Core Processor (Haswell)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand \
            fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm \
            syscall nx rdtscp lm \
            lahf-lm abm \
            xsaveopt \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).alias("Haswell-noTSX").change("-hle -rtm").set(&[("stepping", "1"), ("model-id", "Intel Core Processor (Haswell, no TSX)")]),
            Version::new(3).alias("Haswell-IBRS").change("+hle +rtm +spec-ctrl").set(&[("stepping", "4"), ("model-id", "Intel Core Processor (Haswell, IBRS)")]),
            Version::new(4).alias("Haswell-noTSX-IBRS").change("-hle -rtm").set(&[("stepping", "1"), ("model-id", "Intel Core Processor (Haswell, no TSX, IBRS)")]),
        ],
    },
    Model {
        name: "Broadwell",
        vendor: INTEL, family: 6, model: 61, stepping: 2,
        level: 0xd, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Core Processor (Broadwell)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand \
            fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm rdseed adx smap \
            syscall nx rdtscp lm \
            lahf-lm abm 3dnowprefetch \
            xsaveopt \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).alias("Broadwell-noTSX").change("-hle -rtm").set(&[("model-id", "Intel Core Processor (Broadwell, no TSX)")]),
            Version::new(3).alias("Broadwell-IBRS").change("+hle +rtm +spec-ctrl").set(&[("model-id", "Intel Core Processor (Broadwell, IBRS)")]),
            Version::new(4).alias("Broadwell-noTSX-IBRS").change("-hle -rtm").set(&[("model-id", "Intel Core Processor (Broadwell, no TSX, IBRS)")]),
        ],
    },
    Model {
        name: "Skylake-Client",
        vendor: INTEL, family: 6, model: 94, stepping: 3,
        level: 0xd, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Core Processor (Skylake)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand \
            fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm rdseed adx smap \
            syscall nx rdtscp lm \
            lahf-lm abm 3dnowprefetch \
            xsaveopt xsavec xgetbv1 \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).alias("Skylake-Client-IBRS").change("+spec-ctrl").set(&[("model-id", "Intel Core Processor (Skylake, IBRS)")]),
            Version::new(3).alias("Skylake-Client-noTSX-IBRS").change("-hle -rtm").set(&[("model-id", "Intel Core Processor (Skylake, IBRS, no TSX)")]),
            Version::new(4).change("+xsaves"),
        ],
    },
    Model {
        name: "Skylake-Server",
        vendor: INTEL, family: 6, model: 85, stepping: 4,
        level: 0xd, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Xeon Processor (Skylake)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand \
            fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq rdseed adx smap clflushopt clwb \
            avx512cd avx512bw avx512vl \
            pku \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm abm 3dnowprefetch \
            xsaveopt xsavec xgetbv1 \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).alias("Skylake-Server-IBRS").change("+spec-ctrl -clflushopt").set(&[("model-id", "Intel Xeon Processor (Skylake, IBRS)")]),
            Version::new(3).alias("Skylake-Server-noTSX-IBRS").change("-hle -rtm").set(&[("model-id", "Intel Xeon Processor (Skylake, IBRS, no TSX)")]),
            Version::new(4),
            Version::new(5).change("+xsaves"),
            Version::new(6),
        ],
    },
    Model {
        name: "Cascadelake-Server",
        vendor: INTEL, family: 6, model: 85, stepping: 6,
        level: 0xd, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Xeon Processor (Cascadelake)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand \
            fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq rdseed adx smap clflushopt clwb \
            avx512cd avx512bw avx512vl \
            pku avx512vnni \
            spec-ctrl ssbd \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm abm 3dnowprefetch \
            xsaveopt xsavec xgetbv1 \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).change("+arch-capabilities +rdctl-no +ibrs-all +skip-l1dfl-vmentry +mds-no"),
            Version::new(3).alias("Cascadelake-Server-noTSX").change("-hle -rtm"),
            Version::new(4),
            Version::new(5).change("+xsaves"),
            Version::new(6).change("+sbdr-ssdp-no +psdp-no +fb-clear +gds-no +rfds-no"),
            Version::new(7),
        ],
    },
    Model {
        name: "Cooperlake",
        vendor: INTEL, family: 6, model: 85, stepping: 10,
        level: 0xd, level_func7: 1, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Xeon Processor (Cooperlake)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand \
            fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq rdseed adx smap clflushopt clwb \
            avx512cd avx512bw avx512vl \
            pku avx512vnni \
            spec-ctrl stibp arch-capabilities ssbd \
            avx512-bf16 \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm abm 3dnowprefetch \
            xsaveopt xsavec xgetbv1 \
            arat \
            rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no taa-no",
        versions: &[
            Version::new(1),
            Version::new(2).change("+xsaves"),
        ],
    },
    Model {
        name: "Icelake-Server",
        vendor: INTEL, family: 6, model: 134, stepping: 0,
        level: 0xd, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Xeon Processor (Icelake)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand \
            fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq rdseed adx smap clflushopt clwb \
            avx512cd avx512bw avx512vl \
            avx512vbmi umip pku avx512vbmi2 gfni vaes vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq la57 \
            spec-ctrl ssbd \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm abm 3dnowprefetch \
            wbnoinvd \
            xsaveopt xsavec xgetbv1 \
            arat",
        versions: &[
            Version::new(1),
            Version::new(2).alias("Icelake-Server-noTSX").change("-hle -rtm"),
            Version::new(3).change("+arch-capabilities +rdctl-no +ibrs-all +skip-l1dfl-vmentry +mds-no +pschange-mc-no +taa-no"),
            Version::new(4).change("+avx512ifma +sha-ni +rdpid +fsrm").set(&[("model", "106")]),
            Version::new(5).change("+xsaves"),
            Version::new(6),
            Version::new(7).change("+hle +rtm"),
            Version::new(8).change("+sbdr-ssdp-no +psdp-no +fb-clear +gds-no +rfds-no"),
            Version::new(9),
        ],
    },
    Model {
        name: "SapphireRapids",
        vendor: INTEL, family: 6, model: 143, stepping: 4,
        level: 0x20, level_func7: 1, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Xeon Processor (SapphireRapids)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand \
            fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq rdseed adx smap avx512ifma \
            clflushopt clwb avx512cd sha-ni avx512bw avx512vl \
            avx512vbmi umip pku avx512vbmi2 gfni vaes vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq la57 \
            rdpid bus-lock-detect \
            fsrm serialize tsx-ldtrk amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl arch-capabilities ssbd \
            avx-vnni avx512-bf16 fzrm fsrs fsrc \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm abm 3dnowprefetch \
            wbnoinvd \
            xsaveopt xsavec xgetbv1 xsaves xfd \
            arat \
            rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no taa-no",
        versions: &[
            Version::new(1),
            Version::new(2).change("+sbdr-ssdp-no +fbsdp-no +psdp-no"),
            Version::new(3).change("+ss +tsc-adjust +cldemote +movdiri +movdir64b"),
            Version::new(4).set(&[("x-force-cpuid-0x1f", "on")]).caches(&caches::SAPPHIRERAPIDS),
            Version::new(5).change("+cet-ss +cet-ibt"),
            Version::new(6).change("+its-no"),
            Version::new(7).change("+gds-no +rfds-no"),
            Version::new(8),
        ],
    },
    Model {
        name: "GraniteRapids",
        vendor: INTEL, family: 6, model: 173, stepping: 0,
        level: 0x20, level_func7: 2, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Xeon Processor (GraniteRapids)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand \
            fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq rdseed adx smap avx512ifma \
            clflushopt clwb avx512cd sha-ni avx512bw avx512vl \
            avx512vbmi umip pku avx512vbmi2 gfni vaes vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq la57 \
            rdpid bus-lock-detect \
            fsrm serialize tsx-ldtrk amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl arch-capabilities ssbd \
            avx-vnni avx512-bf16 fzrm fsrs fsrc amx-fp16 \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm abm 3dnowprefetch \
            wbnoinvd \
            xsaveopt xsavec xgetbv1 xsaves xfd \
            arat \
            prefetchiti \
            mcdt-no \
            rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no taa-no sbdr-ssdp-no fbsdp-no psdp-no \
            pbrsb-no",
        versions: &[
            Version::new(1),
            Version::new(2).change("+ss +tsc-adjust +cldemote +movdiri +movdir64b +avx10 +avx10-128 +avx10-256 +avx10-512").set(&[("stepping", "1"), ("level", "36"), ("avx10-version", "1")]),
            Version::new(3).set(&[("x-force-cpuid-0x1f", "on")]).caches(&caches::GRANITERAPIDS),
            Version::new(4).change("+cet-ss +cet-ibt"),
            Version::new(5).change("+its-no"),
            Version::new(6).change("+gds-no +rfds-no"),
            Version::new(7),
        ],
    },
    Model {
        name: "DiamondRapids",
        vendor: INTEL, family: 19, model: 1, stepping: 0,
        level: 0x29, level_func7: 2, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Xeon Processor (DiamondRapids)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ss \
            pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand \
            fsgsbase tsc-adjust bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm zero-fcs-fds avx512f \
            avx512dq rdseed adx smap avx512ifma clflushopt clwb avx512cd sha-ni avx512bw avx512vl \
            avx512vbmi umip pku avx512vbmi2 cet-ss gfni vaes vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq \
            la57 rdpid bus-lock-detect cldemote movdiri movdir64b \
            fsrm md-clear serialize tsx-ldtrk cet-ibt amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp \
            flush-l1d arch-capabilities ssbd \
            avx-vnni avx512-bf16 cmpccxadd fzrm fsrs fsrc fred lkgs wrmsrns amx-fp16 avx-ifma lam movrs \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm abm 3dnowprefetch \
            wbnoinvd \
            xsaveopt xsavec xgetbv1 xsaves xfd \
            arat \
            avx-vnni-int8 avx-ne-convert amx-complex prefetchiti avx10 apxf \
            intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no \
            avx10-128 avx10-256 avx10-512 \
            apx-nci-ndd-nf \
            amx-int8-alias amx-bf16-alias amx-complex-alias amx-fp16-alias amx-fp8 amx-tf32 amx-avx512 amx-movrs \
            avx10-vnni-int \
            rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no taa-no sbdr-ssdp-no fbsdp-no psdp-no \
            bhi-no pbrsb-no gds-no rfds-no",
        versions: &[
            Version::new(1).set(&[("x-force-cpuid-0x1f", "on"), ("avx10-version", "2")]),
            Version::new(2),
        ],
    },
    Model {
        name: "SierraForest",
        vendor: INTEL, family: 6, model: 175, stepping: 0,
        level: 0x23, level_func7: 2, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Xeon Processor (SierraForest)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand \
            fsgsbase bmi1 avx2 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb sha-ni \
            umip pku gfni vaes vpclmulqdq rdpid bus-lock-detect \
            fsrm serialize spec-ctrl arch-capabilities ssbd \
            avx-vnni cmpccxadd fsrs avx-ifma \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm abm 3dnowprefetch \
            wbnoinvd \
            xsaveopt xsavec xgetbv1 xsaves \
            arat \
            avx-vnni-int8 avx-ne-convert \
            mcdt-no \
            rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no sbdr-ssdp-no fbsdp-no psdp-no pbrsb-no",
        versions: &[
            Version::new(1),
            Version::new(2).change("+ss +tsc-adjust +cldemote +movdiri +movdir64b +lam +intel-psfd +ipred-ctrl +rrsba-ctrl \
                +bhi-ctrl +gds-no +rfds-no").set(&[("stepping", "3")]),
            Version::new(3).set(&[("x-force-cpuid-0x1f", "on")]).caches(&caches::SIERRAFOREST),
            Version::new(4).change("+cet-ss +cet-ibt"),
            Version::new(5).change("+its-no"),
            Version::new(6),
        ],
    },
    Model {
        name: "ClearwaterForest",
        vendor: INTEL, family: 6, model: 221, stepping: 0,
        level: 0x23, level_func7: 2, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Xeon Processor (ClearwaterForest)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ss \
            pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand \
            fsgsbase tsc-adjust bmi1 avx2 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb sha-ni \
            umip pku gfni vaes vpclmulqdq rdpid bus-lock-detect cldemote movdiri movdir64b \
            fsrm serialize spec-ctrl arch-capabilities ssbd \
            sha512 sm3 sm4 avx-vnni cmpccxadd fsrs avx-ifma lam \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm abm 3dnowprefetch \
            wbnoinvd \
            xsaveopt xsavec xgetbv1 xsaves \
            arat \
            avx-vnni-int8 avx-ne-convert avx-vnni-int16 prefetchiti \
            intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no \
            rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no sbdr-ssdp-no fbsdp-no psdp-no bhi-no \
            pbrsb-no gds-no rfds-no",
        versions: &[
            Version::new(1),
            Version::new(2).change("+cet-ss +cet-ibt"),
            Version::new(3).change("+its-no").set(&[("x-force-cpuid-0x1f", "on")]).caches(&caches::CLEARWATERFOREST),
            Version::new(4),
        ],
    },
    Model {
        name: "Denverton",
        vendor: INTEL, family: 6, model: 95, stepping: 1,
        level: 0x15, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Atom Processor (Denverton)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq monitor ssse3 cx16 sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave rdrand \
            fsgsbase smep erms mpx rdseed smap clflushopt sha-ni \
            spec-ctrl arch-capabilities ssbd \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm 3dnowprefetch \
            xsaveopt xsavec xgetbv1 \
            arat \
            rdctl-no skip-l1dfl-vmentry",
        versions: &[
            Version::new(1),
            Version::new(2).change("-monitor -mpx"),
            Version::new(3).change("+xsaves"),
        ],
    },
    Model {
        name: "Snowridge",
        vendor: INTEL, family: 6, model: 134, stepping: 1,
        level: 0x1b, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Atom Processor (SnowRidge)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
            pni pclmulqdq monitor ssse3 cx16 sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave rdrand \
            fsgsbase smep erms mpx rdseed smap clflushopt clwb sha-ni \
            umip gfni cldemote movdiri movdir64b \
            spec-ctrl arch-capabilities core-capability ssbd \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm 3dnowprefetch \
            xsaveopt xsavec xgetbv1 \
            arat \
            split-lock-detect",
        versions: &[
            Version::new(1),
            Version::new(2).change("-mpx").set(&[("model-id", "Intel Atom Processor (Snowridge, no MPX)")]),
            Version::new(3).change("+xsaves"),
            Version::new(4).change("-core-capability -split-lock-detect"),
        ],
    },
    Model {
        name: "KnightsMill",
        vendor: INTEL, family: 6, model: 133, stepping: 0,
        level: 0xd, level_func7: 0, xlevel: 0x8000_0008, xlevel2: 0x0,
        model_id: "Intel Xeon Phi Processor (Knights Mill)", caches: Caches::Legacy,
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ss \
            pni pclmulqdq ssse3 fma cx16 sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand \
            fsgsbase bmi1 avx2 smep bmi2 erms avx512f rdseed adx avx512pf avx512er avx512cd \
            avx512-vpopcntdq \
            avx512-4vnniw avx512-4fmaps \
            syscall nx pdpe1gb rdtscp lm \
            lahf-lm abm 3dnowprefetch \
            xsaveopt \
            arat",
        versions: &[
            Version::new(1),
        ],
    },
];
