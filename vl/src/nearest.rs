//! "Did you mean": the known names closest to one that is not known.

/// The up to three `known` names nearest to `name`, best first; none when nothing is similar.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = name.to_ascii_lowercase();
    let mut scored: Vec<(f64, &str)> = known
        .into_iter()
        .map(|k| {
            let candidate = k.to_ascii_lowercase();
            let starts = candidate.starts_with(&wanted) && wanted.len() >= 3;
            (if starts { 0.9 } else { strsim::normalized_damerau_levenshtein(&wanted, &candidate) }, k)
        })
        .filter(|(score, _)| *score >= 0.55)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.len().cmp(&b.1.len())).then(a.1.cmp(b.1)));
    scored.dedup_by_key(|s| s.1);
    scored.into_iter().take(3).map(|(_, k)| k).collect()
}

/// ` (did you mean 'a', 'b'?)`, or nothing: the tail of an error message.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = nearest(name, known).iter().map(|n| format!("'{n}'")).collect();
    if names.is_empty() { String::new() } else { format!(" (did you mean {}?)", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_come_first_and_strangers_never() {
        let known = ["machine", "m", "monitor", "kernel", "pc-i440fx-11.1", "pc-i440fx-10.0"];
        assert_eq!(nearest("mahcine", known), ["machine"]);
        assert_eq!(nearest("pc-i440fx", known)[..2], ["pc-i440fx-10.0", "pc-i440fx-11.1"]);
        assert!(nearest("zzz", known).is_empty());
        assert_eq!(did_you_mean("kernl", known), " (did you mean 'kernel'?)");
    }
}
