//! `-cpu model,+feature,-feature,property=value`, and its help.

use super::models::{Entry, entries};
use super::object::SUFFIX;
use super::words;
use qom::{Class, Error, Registry, Result};

/// Why there is no `host`.
pub const HOST: &str = "CPU model 'host' requires the accelerator kvm, which is not available: use 'max' for everything that tcg implements";

/// What `-cpu` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuOption {
    /// Type of the machine's CPUs.
    pub type_name: String,
    /// Properties and values in the order in which they are to be set: the plain ones, `+` and then `-` features.
    pub properties: Vec<(String, String)>,
    /// What is dubious about it.
    pub warnings: Vec<String>,
}

/// Parses `-cpu`. `newest`: what `MachineClass::newest_cpu_versions` says does not matter here, since types resolve it.
///
/// # Errors
/// No such model, no such property (the nearest names are given), `host`, a malformed frequency.
pub fn parse_cpu_option(text: &str) -> Result<CpuOption> {
    let mut items = text.split(',');
    let model = items.next().unwrap_or_default();
    let class = class_of(model)?;
    let mut option = CpuOption { type_name: class.name().to_owned(), properties: vec![], warnings: vec![] };
    let (mut plus, mut minus): (Vec<String>, Vec<String>) = (vec![], vec![]);
    for item in items.filter(|i| !i.is_empty()) {
        if let Some(f) = item.strip_prefix('+') {
            plus.push(property(class, f)?);
        } else if let Some(f) = item.strip_prefix('-') {
            minus.push(property(class, f)?);
        } else {
            let (key, value) = item.split_once('=').unwrap_or((item, "on"));
            let pair = match key {
                "tsc-freq" => ("tsc-frequency".to_owned(), frequency(value)?.to_string()),
                _ => (property(class, key)?, value.to_owned()),
            };
            option.properties.push(pair);
        }
    }
    for (sign, list) in [('+', &plus), ('-', &minus)] {
        for f in list {
            if let Some((name, value)) = option.properties.iter().find(|p| p.0 == *f) {
                let both = format!("Ambiguous CPU model string. Don't mix both \"{sign}{f}\" and \"{name}={value}\"");
                option.warnings.push(both);
            }
            if sign == '+' && minus.contains(f) {
                option.warnings.push(format!("Ambiguous CPU model string. Don't mix both \"+{f}\" and \"-{f}\""));
            }
        }
    }
    option.properties.extend(plus.into_iter().map(|f| (f, "on".to_owned())));
    option.properties.extend(minus.into_iter().map(|f| (f, "off".to_owned())));
    Ok(option)
}

/// The class of a model, by its name for `-cpu` or its type name.
///
/// # Errors
/// There is none; the nearest names are given. `host`: never without KVM.
pub fn class_of(model: &str) -> Result<&'static Class> {
    let name = model.strip_suffix(SUFFIX).unwrap_or(model);
    if name == "host" {
        return Err(Error::generic(HOST));
    }
    let class = Registry::global().class(&format!("{name}{SUFFIX}"));
    match class {
        Ok(c) if c.data::<Entry>().is_some() => Ok(c),
        _ => {
            let names: Vec<String> = entries().iter().map(Entry::name).collect();
            let near = qom::nearest(name, names.iter().map(String::as_str));
            let hint =
                if near.is_empty() { String::new() } else { format!(" (did you mean '{}'?)", near.join("', '")) };
            Err(Error::generic(format!("unable to find CPU model '{model}'{hint}")))
        }
    }
}

/// A property by its name, or with `_` for `-`.
fn property(class: &'static Class, name: &str) -> Result<String> {
    let dashed = name.replace('_', "-");
    let found = [dashed.as_str(), name].into_iter().find(|n| class.find_property(n).is_some());
    found.map(str::to_owned).ok_or_else(|| Error::PropertyNotFound {
        ty: class.name(),
        name: dashed.clone(),
        near: qom::nearest(&dashed, class.properties().map(|p| p.name())),
    })
}

/// A frequency in Hz: decimal, with a suffix that is a power of 1000.
fn frequency(text: &str) -> Result<u64> {
    let bad = || Error::generic(format!("bad numerical value {text}"));
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let power = match unit.to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err(bad()),
    };
    let v: f64 = number.parse().map_err(|_| bad())?;
    let hz = v * 1000f64.powi(power);
    if hz < 0.0 || hz >= i64::MAX as f64 { Err(bad()) } else { Ok(hz as u64) }
}

/// `-cpu help`. `newest`: what the machine makes of models without a version.
pub fn help() -> String {
    let mut all: Vec<&Entry> = entries().iter().collect();
    let rank = |e: &Entry| match e {
        Entry::Base => 1,
        Entry::Host => 2,
        Entry::Max => 3,
        _ => 0,
    };
    all.sort_by_key(|e| (rank(e), e.name()));
    let mut out = String::from("Available CPUs:\n");
    for e in all {
        let text = match e {
            Entry::Unversioned(_) => "(alias configured by machine type)".to_owned(),
            Entry::Alias(m, v, _) => format!("(alias of {}-v{})", m.name, v.number),
            Entry::Version(..) => e.definition(false).model_id,
            Entry::Base => "base CPU model type with no features enabled".to_owned(),
            Entry::Host => "processor of the host (only with kvm)".to_owned(),
            Entry::Max => "Enables all features supported by the accelerator".to_owned(),
        };
        out.push_str(format!("  {:<20}  {text}", e.name()).trim_end());
        out.push('\n');
    }
    out.push_str("\nRecognized CPUID flags:\n");
    let mut names = words::names().to_vec();
    names.sort_unstable();
    let mut line = String::new();
    for n in names {
        if !line.is_empty() && line.len() + n.len() + 1 >= 75 {
            out.push_str(&format!("  {line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(n);
    }
    out.push_str(&format!("  {line}\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse_cpu_option(text).expect_err(text).to_string()
    }

    #[test]
    fn signs_come_after_properties_and_minus_last() {
        let o = parse_cpu_option("qemu64,-sse3,+sse4_1,model_id=x,lahf_lm,level=4,tsc-freq=2.5G").unwrap();
        assert_eq!(o.type_name, "qemu64-x86_64-cpu");
        let p: Vec<_> = o.properties.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            p,
            [
                ("model-id", "x"),
                ("lahf-lm", "on"),
                ("level", "4"),
                ("tsc-frequency", "2500000000"),
                ("sse4-1", "on"),
                ("sse3", "off")
            ]
        );
        assert_eq!(o.warnings, [""; 0]);
        let o = parse_cpu_option("max,+avx,avx=off,-avx").unwrap();
        assert_eq!(o.warnings.len(), 3);
        assert!(o.warnings[0].contains("Don't mix both \"+avx\" and \"avx=off\""), "{:?}", o.warnings);
    }
    #[test]
    fn mistakes_name_what_is_near() {
        assert_eq!(error("qemu46"), "unable to find CPU model 'qemu46' (did you mean 'qemu64', 'qemu32'?)");
        assert!(error("Skylake-Clinet").contains("'Skylake-Client'"));
        assert!(error("host").contains("use 'max'"));
        let e = error("qemu64,+popcn");
        assert!(e.contains("Property 'qemu64-x86_64-cpu.popcn' not found (did you mean 'popcnt'"), "{e}");
        assert_eq!(error("qemu64,tsc-freq=fast"), "bad numerical value fast");
        assert!(error("x86_64-cpu").contains("unable to find"));
    }
    #[test]
    fn help_lists_models_and_flags() {
        let h = help();
        for line in [
            "  Skylake-Client-IBRS   (alias of Skylake-Client-v2)\n",
            "  486-v1\n",
            " sse4.1 ",
            "Recognized CPUID flags:\n",
        ] {
            assert!(h.contains(line), "{line}\n{h}");
        }
        assert!(h.lines().skip_while(|l| !l.starts_with("Recog")).all(|l| l.len() < 80));
    }
}
