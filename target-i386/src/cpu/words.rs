//! Feature words: which bit of which CPUID register, or of which read-only MSR, a feature name stands for.
//!
//! Source: Intel SDM vol. 2 CPUID and vol. 4; AMD64 APM vol. 3 appendix E; the names and the order are those of QEMU 11.1.
//! Two names of the 4000_0001 leaf (`kvmclock`) share a meaning; no word of it exists without KVM.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A register of a CPUID leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registers")]
pub enum Reg {
    EAX,
    EBX,
    ECX,
    EDX,
}
use Reg::*;

impl Reg {
    /// Name, as messages have it.
    pub const fn name(self) -> &'static str {
        match self {
            EAX => "EAX",
            EBX => "EBX",
            ECX => "ECX",
            EDX => "EDX",
        }
    }
}

/// Subleaf of leaves that do not look at ECX.
pub const ANY: u32 = u32::MAX;

/// Where a word is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Leaf, subleaf ([`ANY`] if there is none), register.
    Cpuid(u32, u32, Reg),
    /// A read-only MSR.
    Msr(u32),
}

impl Place {
    /// As messages have it: `CPUID[eax=07h,ecx=00h].EBX`, `MSR(10Ah)`.
    pub fn describe(self) -> String {
        match self {
            Place::Cpuid(leaf, ANY, reg) => format!("CPUID[eax={leaf:02X}h].{}", reg.name()),
            Place::Cpuid(leaf, sub, reg) => format!("CPUID[eax={leaf:02X}h,ecx={sub:02X}h].{}", reg.name()),
            Place::Msr(index) => format!("MSR({index:02X}h)"),
        }
    }
}

/// A word and the names of its bits.
pub struct Word {
    /// Where it is read.
    pub place: Place,
    /// `bit:name`, separated by blanks.
    names: &'static str,
}

const fn cpuid(leaf: u32, sub: u32, reg: Reg, names: &'static str) -> Word {
    Word { place: Place::Cpuid(leaf, sub, reg), names }
}
const fn msr(index: u32, names: &'static str) -> Word {
    Word { place: Place::Msr(index), names }
}

/// Number of words.
pub const WORDS: usize = TABLE.len();

/// The words, in the order in which features are listed and judged.
#[rustfmt::skip]
pub static TABLE: [Word; 48] = [
    cpuid(0x1, ANY, EDX, "0:fpu 1:vme 2:de 3:pse 4:tsc 5:msr 6:pae 7:mce 8:cx8 9:apic 11:sep 12:mtrr 13:pge 14:mca 15:cmov \
        16:pat 17:pse36 18:pn 19:clflush 21:ds 22:acpi 23:mmx 24:fxsr 25:sse 26:sse2 27:ss 28:ht 29:tm \
        30:ia64 31:pbe"),
    cpuid(0x1, ANY, ECX, "0:pni 1:pclmulqdq 2:dtes64 3:monitor 4:ds-cpl 5:vmx 6:smx 7:est 8:tm2 9:ssse3 10:cid 12:fma 13:cx16 \
        14:xtpr 15:pdcm 17:pcid 18:dca 19:sse4.1 20:sse4.2 21:x2apic 22:movbe 23:popcnt 24:tsc-deadline \
        25:aes 26:xsave 28:avx 29:f16c 30:rdrand 31:hypervisor"),
    cpuid(0x7, 0, EBX, "0:fsgsbase 1:tsc-adjust 2:sgx 3:bmi1 4:hle 5:avx2 6:fdp-excptn-only 7:smep 8:bmi2 9:erms 10:invpcid \
        11:rtm 13:zero-fcs-fds 14:mpx 16:avx512f 17:avx512dq 18:rdseed 19:adx 20:smap 21:avx512ifma \
        22:pcommit 23:clflushopt 24:clwb 25:intel-pt 26:avx512pf 27:avx512er 28:avx512cd 29:sha-ni \
        30:avx512bw 31:avx512vl"),
    cpuid(0x7, 0, ECX, "1:avx512vbmi 2:umip 3:pku 5:waitpkg 6:avx512vbmi2 7:cet-ss 8:gfni 9:vaes 10:vpclmulqdq 11:avx512vnni \
        12:avx512bitalg 14:avx512-vpopcntdq 16:la57 22:rdpid 24:bus-lock-detect 25:cldemote 27:movdiri \
        28:movdir64b 30:sgxlc 31:pks"),
    cpuid(0x7, 0, EDX, "2:avx512-4vnniw 3:avx512-4fmaps 4:fsrm 8:avx512-vp2intersect 10:md-clear 14:serialize 16:tsx-ldtrk \
        19:arch-lbr 20:cet-ibt 22:amx-bf16 23:avx512-fp16 24:amx-tile 25:amx-int8 26:spec-ctrl 27:stibp \
        28:flush-l1d 29:arch-capabilities 30:core-capability 31:ssbd"),
    cpuid(0x7, 1, EAX, "0:sha512 1:sm3 2:sm4 4:avx-vnni 5:avx512-bf16 7:cmpccxadd 10:fzrm 11:fsrs 12:fsrc 17:fred 18:lkgs \
        19:wrmsrns 21:amx-fp16 23:avx-ifma 26:lam 31:movrs"),
    cpuid(0x8000_0001, ANY, EDX, "11:syscall 20:nx 22:mmxext 25:fxsr-opt 26:pdpe1gb 27:rdtscp 29:lm 30:3dnowext 31:3dnow"),
    cpuid(0x8000_0001, ANY, ECX, "0:lahf-lm 1:cmp-legacy 2:svm 3:extapic 4:cr8legacy 5:abm 6:sse4a 7:misalignsse 8:3dnowprefetch \
        9:osvw 10:ibs 11:xop 12:skinit 13:wdt 15:lwp 16:fma4 17:tce 19:nodeid-msr 21:tbm 22:topoext \
        23:perfctr-core 24:perfctr-nb"),
    cpuid(0x8000_0007, ANY, EBX, "0:overflow-recov 1:succor"),
    cpuid(0x8000_0007, ANY, EDX, "8:invtsc"),
    cpuid(0x8000_0008, ANY, EBX, "0:clzero 2:xsaveerptr 9:wbnoinvd 12:ibpb 14:ibrs 15:amd-stibp 17:stibp-always-on 24:amd-ssbd \
        25:virt-ssbd 26:amd-no-ssb 28:amd-psfd"),
    cpuid(0x8000_0021, ANY, EAX, "0:no-nested-data-bp 1:fs-gs-base-ns 2:lfence-always-serializing 5:verw-clear 6:null-sel-clr-base \
        8:auto-ibrs 20:prefetchi 24:eraps 27:sbpb 28:ibpb-brtype 29:srso-no 30:srso-user-kernel-no"),
    cpuid(0x8000_0021, ANY, EBX, ""),
    cpuid(0x8000_0021, ANY, ECX, "1:tsa-sq-no 2:tsa-l1-no"),
    cpuid(0x8000_0022, ANY, EAX, "0:perfmon-v2"),
    cpuid(0xc000_0001, ANY, EDX, "2:xstore 3:xstore-en 6:xcrypt 7:xcrypt-en 8:ace2 9:ace2-en 10:phe 11:phe-en 12:pmm 13:pmm-en"),
    cpuid(0x4000_0001, ANY, EAX, "0:kvmclock 1:kvm-nopiodelay 2:kvm-mmu 3:kvmclock 4:kvm-asyncpf 5:kvm-steal-time 6:kvm-pv-eoi \
        7:kvm-pv-unhalt 9:kvm-pv-tlb-flush 10:kvm-asyncpf-vmexit 11:kvm-pv-ipi 12:kvm-poll-control \
        13:kvm-pv-sched-yield 14:kvm-asyncpf-int 15:kvm-msi-ext-dest-id 24:kvmclock-stable-bit"),
    cpuid(0x4000_0001, ANY, EDX, "0:kvm-hint-dedicated"),
    cpuid(0x8000_000a, ANY, EDX, "0:npt 1:lbrv 2:svm-lock 3:nrip-save 4:tsc-scale 5:vmcb-clean 6:flushbyasid 7:decodeassists \
        10:pause-filter 12:pfthreshold 13:avic 15:v-vmsave-vmload 16:vgif 17:gmet 25:vnmi 28:svme-addr-chk"),
    cpuid(0xd, 1, EAX, "0:xsaveopt 1:xsavec 2:xgetbv1 3:xsaves 4:xfd"),
    cpuid(0x6, ANY, EAX, "2:arat"),
    cpuid(0xd, 0, EAX, ""),
    cpuid(0xd, 0, EDX, ""),
    cpuid(0x14, 0, ECX, "31:intel-pt-lip"),
    cpuid(0x12, 0, EAX, "0:sgx1 1:sgx2 11:sgx-edeccssa"),
    cpuid(0x12, 0, EBX, "0:sgx-exinfo"),
    cpuid(0x12, 1, EAX, "1:sgx-debug 2:sgx-mode64 4:sgx-provisionkey 5:sgx-tokenkey 7:sgx-kss 10:sgx-aex-notify"),
    cpuid(0xd, 1, ECX, ""),
    cpuid(0xd, 1, EDX, ""),
    cpuid(0x7, 1, ECX, "5:msr-imm"),
    cpuid(0x7, 1, EDX, "4:avx-vnni-int8 5:avx-ne-convert 8:amx-complex 10:avx-vnni-int16 14:prefetchiti 19:avx10 21:apxf"),
    cpuid(0x7, 2, EDX, "0:intel-psfd 1:ipred-ctrl 2:rrsba-ctrl 3:ddpd-u 4:bhi-ctrl 5:mcdt-no"),
    cpuid(0x24, 0, EBX, "16:avx10-128 17:avx10-256 18:avx10-512"),
    cpuid(0x29, 0, EBX, "0:apx-nci-ndd-nf"),
    cpuid(0x1e, 1, EAX, "0:amx-int8-alias 1:amx-bf16-alias 2:amx-complex-alias 3:amx-fp16-alias 4:amx-fp8 6:amx-tf32 \
        7:amx-avx512 8:amx-movrs"),
    cpuid(0x24, 1, ECX, "2:avx10-vnni-int"),
    msr(0xcf, "5:split-lock-detect"),
    msr(0x10a, "0:rdctl-no 1:ibrs-all 2:rsba 3:skip-l1dfl-vmentry 4:ssb-no 5:mds-no 6:pschange-mc-no 7:tsx-ctrl \
        8:taa-no 13:sbdr-ssdp-no 14:fbsdp-no 15:psdp-no 17:fb-clear 20:bhi-no 24:pbrsb-no 26:gds-no \
        27:rfds-no 28:rfds-clear 62:its-no"),
    msr(0x345, "13:full-width-write"),
    msr(0x480, "54:vmx-ins-outs 55:vmx-true-ctls 56:vmx-any-errcode 58:vmx-nested-exception"),
    msr(0x485, "5:vmx-store-lma 6:vmx-activity-hlt 7:vmx-activity-shutdown 8:vmx-activity-wait-sipi \
        29:vmx-vmwrite-vmexit-fields 30:vmx-zero-len-inject"),
    msr(0x48b, "0:vmx-apicv-xapic 1:vmx-ept 2:vmx-desc-exit 3:vmx-rdtscp-exit 4:vmx-apicv-x2apic 5:vmx-vpid \
        6:vmx-wbinvd-exit 7:vmx-unrestricted-guest 8:vmx-apicv-register 9:vmx-apicv-vid 10:vmx-ple \
        11:vmx-rdrand-exit 12:vmx-invpcid-exit 13:vmx-vmfunc 14:vmx-shadow-vmcs 15:vmx-encls-exit \
        16:vmx-rdseed-exit 17:vmx-pml 20:vmx-xsaves 22:vmx-mbec 25:vmx-tsc-scaling \
        26:vmx-enable-user-wait-pause"),
    msr(0x48c, "0:vmx-ept-execonly 6:vmx-page-walk-4 7:vmx-page-walk-5 16:vmx-ept-2mb 17:vmx-ept-1gb 20:vmx-invept \
        21:vmx-eptad 22:vmx-ept-advanced-exitinfo 26:vmx-invept-all-context 32:vmx-invvpid \
        40:vmx-invvpid-single-addr 41:vmx-invept-single-context 42:vmx-invvpid-all-context \
        43:vmx-invept-single-context-noglobals"),
    msr(0x48d, "0:vmx-intr-exit 3:vmx-nmi-exit 5:vmx-vnmi 6:vmx-preemption-timer 7:vmx-posted-intr"),
    msr(0x48e, "2:vmx-vintr-pending 3:vmx-tsc-offset 7:vmx-hlt-exit 9:vmx-invlpg-exit 10:vmx-mwait-exit \
        11:vmx-rdpmc-exit 12:vmx-rdtsc-exit 15:vmx-cr3-load-noexit 16:vmx-cr3-store-noexit \
        19:vmx-cr8-load-exit 20:vmx-cr8-store-exit 21:vmx-flexpriority 22:vmx-vnmi-pending 23:vmx-movdr-exit \
        24:vmx-io-exit 25:vmx-io-bitmap 27:vmx-mtf 28:vmx-msr-bitmap 29:vmx-monitor-exit 30:vmx-pause-exit \
        31:vmx-secondary-ctls"),
    msr(0x48f, "2:vmx-exit-nosave-debugctl 12:vmx-exit-load-perf-global-ctrl 15:vmx-exit-ack-intr \
        18:vmx-exit-save-pat 19:vmx-exit-load-pat 20:vmx-exit-save-efer 21:vmx-exit-load-efer \
        22:vmx-exit-save-preemption-timer 23:vmx-exit-clear-bndcfgs 25:vmx-exit-clear-rtit-ctl \
        28:vmx-exit-save-cet 29:vmx-exit-load-pkrs 31:vmx-exit-secondary-ctls"),
    msr(0x490, "2:vmx-entry-noload-debugctl 9:vmx-entry-ia32e-mode 13:vmx-entry-load-perf-global-ctrl \
        14:vmx-entry-load-pat 15:vmx-entry-load-efer 16:vmx-entry-load-bndcfgs 18:vmx-entry-load-rtit-ctl \
        20:vmx-entry-load-cet 22:vmx-entry-load-pkrs 23:vmx-entry-load-fred"),
    msr(0x491, "0:vmx-eptp-switching"),
];

/// Other spellings of features. Any `_` may be written for `-` beside these.
static ALIASES: &[(&str, &str)] = &[
    ("ffxsr", "fxsr-opt"),
    ("i64", "lm"),
    ("pclmuldq", "pclmulqdq"),
    ("sse3", "pni"),
    ("sse4-1", "sse4.1"),
    ("sse4-2", "sse4.2"),
    ("xd", "nx"),
    // Spelled with underscores, they are properties of their own.
    ("cmp_legacy", "cmp-legacy"),
    ("ds_cpl", "ds-cpl"),
    ("fxsr_opt", "fxsr-opt"),
    ("kvm_asyncpf", "kvm-asyncpf"),
    ("kvm_asyncpf_int", "kvm-asyncpf-int"),
    ("kvm_mmu", "kvm-mmu"),
    ("kvm_nopiodelay", "kvm-nopiodelay"),
    ("kvm_poll_control", "kvm-poll-control"),
    ("kvm_pv_eoi", "kvm-pv-eoi"),
    ("kvm_pv_unhalt", "kvm-pv-unhalt"),
    ("kvm_steal_time", "kvm-steal-time"),
    ("lahf_lm", "lahf-lm"),
    ("nodeid_msr", "nodeid-msr"),
    ("nrip_save", "nrip-save"),
    ("pause_filter", "pause-filter"),
    ("perfctr_core", "perfctr-core"),
    ("perfctr_nb", "perfctr-nb"),
    ("sse4_1", "sse4.1"),
    ("sse4_2", "sse4.2"),
    ("svm_lock", "svm-lock"),
    ("tsc_adjust", "tsc-adjust"),
    ("tsc_scale", "tsc-scale"),
    ("vmcb_clean", "vmcb-clean"),
];

/// A bit of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bit {
    /// Index into [`TABLE`].
    pub word: usize,
    /// 0 to 63.
    pub bit: u32,
}

struct Names {
    by_name: HashMap<&'static str, Vec<Bit>>,
    by_bit: HashMap<Bit, &'static str>,
    /// Canonical names, in table order.
    list: Vec<&'static str>,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let mut n = Names { by_name: HashMap::new(), by_bit: HashMap::new(), list: vec![] };
    for (word, w) in TABLE.iter().enumerate() {
        for (bit, name) in w.names.split_whitespace().filter_map(|p| p.split_once(':')) {
            let bit = Bit { word, bit: bit.parse().unwrap_or(0) };
            n.by_bit.insert(bit, name);
            let bits = n.by_name.entry(name).or_default();
            if bits.is_empty() {
                n.list.push(name);
            }
            bits.push(bit);
        }
    }
    for (alias, name) in ALIASES {
        if let Some(bits) = n.by_name.get(name).cloned() {
            n.by_name.insert(alias, bits);
        }
    }
    n
});

/// The bits that a feature name, or another spelling of one, stands for.
pub fn bits(name: &str) -> Option<&'static [Bit]> {
    NAMES.by_name.get(name).map(Vec::as_slice)
}
/// Name of a bit, if it has one.
pub fn name(bit: Bit) -> Option<&'static str> {
    NAMES.by_bit.get(&bit).copied()
}
/// Canonical feature names, in table order.
pub fn names() -> &'static [&'static str] {
    &NAMES.list
}
/// Other spellings, with the canonical name of each.
pub fn aliases() -> &'static [(&'static str, &'static str)] {
    ALIASES
}
/// Index of the word that is read there.
pub fn at(place: Place) -> Option<usize> {
    TABLE.iter().position(|w| w.place == place)
}
