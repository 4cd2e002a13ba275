//! QOM properties of CPUs: features, flags, numbers. What needs something that is not built refuses to be switched on.

use super::config::{AUTO, Config};
use super::object::X86Cpu;
use super::words::{self, Place, TABLE};
use qom::{Class, Error, Input, PropType, Property, Reject, Result, of_class};
use serde_json::{Value, json};

/// What switching a flag does.
enum Effect {
    /// It is looked at.
    Works,
    /// It concerns nothing that exists here (another accelerator, migration from other versions), whatever its value.
    Idle,
    /// It needs this, and says so.
    Needs(&'static str),
}
use Effect::*;

/// A boolean that is no feature: name, default, effect.
struct Flag(&'static str, bool, Effect);

const KVM: &str = "the accelerator kvm";
const XEN: &str = "Xen";

/// The flags; the index is the bit in [`X86Cpu`]'s word.
#[rustfmt::skip]
static FLAGS: &[Flag] = &[
    Flag("check", true, Works),
    Flag("enforce", false, Works),
    Flag("cpuid-0xb", true, Works),
    Flag("tcg-cpuid", true, Works),
    Flag("l3-cache", true, Works),
    Flag("legacy-cache", true, Works),
    Flag("x-force-cpuid-0x1f", false, Works),
    Flag("x-vendor-cpuid-only", true, Works),
    Flag("x-vendor-cpuid-only-v2", true, Works),
    Flag("x-consistent-cache", true, Works),
    Flag("x-amd-topoext-features-only", true, Works),
    Flag("x-l1-cache-per-thread", true, Works),
    Flag("kvm", true, Idle),
    Flag("kvm-pv-enforce-cpuid", false, Idle),
    Flag("vmware-cpuid-freq", true, Idle),
    Flag("fill-mtrr-mask", true, Idle),
    Flag("legacy-multi-node", false, Idle),
    Flag("x-migrate-smi-count", true, Idle),
    Flag("x-arch-cap-always-on", false, Idle),
    Flag("x-pdcm-on-even-without-pmu", false, Idle),
    Flag("host-phys-bits", false, Needs(KVM)),
    Flag("pmu", false, Needs("performance counters")),
    Flag("lmce", false, Needs("local machine checks")),
    Flag("x-force-features", false, Needs("an engine that implements them")),
    Flag("xen-vapic", false, Needs(XEN)),
    Flag("hv-apicv", false, Needs(KVM)),
    Flag("hv-avic", false, Needs(KVM)),
    Flag("hv-crash", false, Needs(KVM)),
    Flag("hv-emsr-bitmap", false, Needs(KVM)),
    Flag("hv-enforce-cpuid", false, Needs(KVM)),
    Flag("hv-evmcs", false, Needs(KVM)),
    Flag("hv-frequencies", false, Needs(KVM)),
    Flag("hv-ipi", false, Needs(KVM)),
    Flag("hv-passthrough", false, Needs(KVM)),
    Flag("hv-reenlightenment", false, Needs(KVM)),
    Flag("hv-relaxed", false, Needs(KVM)),
    Flag("hv-reset", false, Needs(KVM)),
    Flag("hv-runtime", false, Needs(KVM)),
    Flag("hv-stimer", false, Needs(KVM)),
    Flag("hv-stimer-direct", false, Needs(KVM)),
    Flag("hv-syndbg", false, Needs(KVM)),
    Flag("hv-synic", false, Needs(KVM)),
    Flag("hv-time", false, Needs(KVM)),
    Flag("hv-tlbflush", false, Needs(KVM)),
    Flag("hv-tlbflush-direct", false, Needs(KVM)),
    Flag("hv-tlbflush-ext", false, Needs(KVM)),
    Flag("hv-vapic", false, Needs(KVM)),
    Flag("hv-vpindex", false, Needs(KVM)),
    Flag("hv-xmm-input", false, Needs(KVM)),
];
/// Flags of `max` alone. They follow the others in the word.
#[rustfmt::skip]
static MAX_FLAGS: &[Flag] = &[
    Flag("migratable", true, Idle),
    Flag("host-cache-info", false, Needs(KVM)),
];

fn all_flags() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().chain(MAX_FLAGS)
}
/// Mask of a flag in the word.
pub fn flag_mask(name: &str) -> u64 {
    all_flags().position(|f| f.0 == name).map_or(0, |i| 1 << i)
}
/// The word at the start.
pub fn flag_defaults() -> u64 {
    all_flags().enumerate().filter(|(_, f)| f.1).fold(0, |m, (i, _)| m | 1 << i)
}

fn flag(f: &'static Flag) -> Property {
    let mask = flag_mask(f.0);
    Property::new(f.0, "bool")
        .default_value(f.1)
        .reader(move |o| Ok((of_class::<X86Cpu>(o).flags.get() & mask != 0).into()))
        .writer(move |o, input| {
            let on = bool::take(input)?;
            if let (true, Needs(what)) = (on, &f.2) {
                return Err(Error::generic(format!("Property '{}.{}' needs {what}", o.type_name(), f.0)).into());
            }
            let word = &of_class::<X86Cpu>(o).flags;
            word.set(if on { word.get() | mask } else { word.get() & !mask });
            Ok(())
        })
}

fn feature(name: &'static str) -> Property {
    Property::new(name, "bool")
        .reader(move |o| Ok(of_class::<X86Cpu>(o).config().def.features.has(name).into()))
        .writer(move |o, input| {
            let on = bool::take(input)?;
            of_class::<X86Cpu>(o).edit(|c| c.set_feature(name, on));
            Ok(())
        })
}

/// A number of the configuration.
fn number<T: PropType>(name: &'static str, get: fn(&Config) -> T, set: fn(&mut Config, T)) -> Property {
    Property::computed::<T>(name).getter(move |c: &X86Cpu| Ok(get(&c.config()))).setter(move |c: &X86Cpu, v: T| {
        c.edit(|c| set(c, v));
        Ok(())
    })
}

/// A number with limits of its own, type `int`.
fn limited(name: &'static str, max: i64, get: fn(&Config) -> u32, set: fn(&mut Config, u32)) -> Property {
    let p = Property::computed::<i64>(name).getter(move |c: &X86Cpu| Ok(i64::from(get(&c.config()))));
    let p = p.setter(move |c: &X86Cpu, v: i64| {
        if !(0..=max).contains(&v) {
            return Err(Error::generic(format!("parameter '{name}' can be at most {max}, and at least 0")));
        }
        c.edit(|c| set(c, v as u32));
        Ok(())
    });
    p.type_named("int")
}

fn text(name: &'static str, get: fn(&Config) -> String, set: fn(&mut Config, String) -> Result<()>) -> Property {
    let p = Property::computed::<String>(name).getter(move |c: &X86Cpu| Ok(get(&c.config())));
    let p = p.setter(move |c: &X86Cpu, v: String| c.edit(|c| set(c, v)));
    p.type_named("string")
}

/// The CPUID words, as `feature-words` and `filtered-features` list them: last first.
fn word_infos(word: impl Fn(usize) -> u64) -> Value {
    let one = |(i, w): (usize, &words::Word)| {
        let Place::Cpuid(leaf, sub, reg) = w.place else { return None };
        let mut v = json!({ "cpuid-register": reg.name(), "cpuid-input-eax": leaf, "features": word(i) });
        if sub != words::ANY
            && let Some(o) = v.as_object_mut()
        {
            o.insert("cpuid-input-ecx".to_owned(), sub.into());
        }
        Some(v)
    };
    TABLE.iter().enumerate().rev().filter_map(one).collect()
}

/// Adds the properties that all CPUs have.
pub fn class_init(c: &mut Class) {
    words::names().iter().chain(words::aliases().iter().map(|a| &a.0)).for_each(|n| c.property(feature(n)));
    FLAGS.iter().for_each(|f| c.property(flag(f)));
    c.property(limited("family", 0xff + 0xf, |c| c.def.family, |c, v| c.def.family = v));
    c.property(limited("model", 0xff, |c| c.def.model, |c, v| c.def.model = v));
    c.property(limited("stepping", 0xf, |c| c.def.stepping, |c, v| c.def.stepping = v));
    let vendor = |c: &mut Config, v: String| {
        if v.len() != 12 {
            return Err(Error::generic("value of property 'vendor' must consist of exactly 12 characters"));
        }
        c.def.vendor = v;
        Ok(())
    };
    c.property(text("vendor", |c| c.def.vendor.clone(), vendor));
    let model_id = |c: &mut Config, v: String| {
        c.def.model_id = v.char_indices().take_while(|(i, ch)| i + ch.len_utf8() <= 48).map(|c| c.1).collect();
        Ok(())
    };
    c.property(text("model-id", |c| c.def.model_id.clone(), model_id));
    c.property(number("avx10-version", |c| c.def.avx10_version, |c, v: u8| c.def.avx10_version = v));
    let auto = |p: Property| p.default_value(AUTO);
    c.property(auto(number("level", |c| c.levels.basic, |c, v| c.levels.basic = v)));
    c.property(auto(number("level-func7", |c| c.levels.func7, |c, v| c.levels.func7 = v)));
    c.property(auto(number("xlevel", |c| c.levels.extended, |c, v| c.levels.extended = v)));
    c.property(auto(number("xlevel2", |c| c.levels.centaur, |c, v| c.levels.centaur = v)));
    let least = |p: Property| p.default_value(0);
    c.property(least(number("min-level", |c| c.min.basic, |c, v| c.min.basic = v)));
    c.property(least(number("min-xlevel", |c| c.min.extended, |c, v| c.min.extended = v)));
    c.property(least(number("min-xlevel2", |c| c.min.centaur, |c, v| c.min.centaur = v)));
    let hz = |c: &X86Cpu, v: i64| {
        if v < 0 {
            return Err(Error::generic("parameter 'tsc-frequency' can be at least 0"));
        }
        c.tsc_hz.set(v as u64);
        Ok(())
    };
    let frequency =
        Property::computed::<i64>("tsc-frequency").getter(|c: &X86Cpu| Ok(c.tsc_hz.get() as i64)).setter(hz);
    c.property(frequency.type_named("int"));
    for name in ["lbr-fmt", "lbr_fmt"] {
        // The format is 6 bits of IA32_PERF_CAPABILITIES; those above are ones while none is chosen.
        let p = Property::computed::<u64>(name).getter(|_: &X86Cpu| Ok(!0x3fu64));
        c.property(p.setter(|c: &X86Cpu, v: u64| match v {
            0xffff_ffff_ffff_ffc0 => Ok(()),
            _ => Err(Error::generic(format!("Property '{}.lbr-fmt' needs last-branch records", c.type_name()))),
        }));
    }
    for (name, filtered) in [("feature-words", false), ("filtered-features", true)] {
        c.property(Property::new(name, "X86CPUFeatureWordInfo").reader(move |o| {
            let c = of_class::<X86Cpu>(o).config();
            let set = if filtered { c.filtered } else { c.def.features };
            Ok(word_infos(|i| set.at(i)))
        }));
    }
    c.property(Property::new("unavailable-features", "strList").reader(|o| {
        let c = of_class::<X86Cpu>(o).config();
        Ok(c.filtered.names().into())
    }));
    c.property(
        Property::new("crash-information", "GuestPanicInformation")
            .reader(|_| Err(Error::generic("No crash occurred"))),
    );
}

/// Adds what only `max` has.
pub fn max_class_init(c: &mut Class) {
    MAX_FLAGS.iter().for_each(|f| c.property(flag(f)));
}

/// Value of a property that must keep its default without `what`.
pub fn only<T>(name: &'static str, default: T, what: &'static str) -> Property
where
    T: PropType + PartialEq + Into<Value>,
{
    let shown = default.clone();
    Property::computed::<T>(name).default_value(default.clone()).reader(move |_| Ok(shown.to_json())).writer(
        move |o, input: Input<'_>| match T::take(input)? == default {
            true => Ok(()),
            false => Err(Reject::from(Error::generic(format!("Property '{}.{name}' needs {what}", o.type_name())))),
        },
    )
}
