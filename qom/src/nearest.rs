//! Nearest names, for "did you mean".

/// At most three of `candidates` that look like `name`, best first.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let lower = name.to_lowercase();
    let limit = (name.chars().count() / 3).clamp(1, 4);
    let mut found: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter_map(|c| {
            let other = c.to_lowercase();
            let distance = strsim::damerau_levenshtein(&lower, &other);
            // A name that was cut short or lengthened is near as well, but after the misspelt ones.
            let part = lower.len() >= 3 && (other.starts_with(&lower) || other.split('-').any(|w| w == lower));
            (distance <= limit).then_some(distance).or(part.then_some(limit + 1)).map(|d| (d, c))
        })
        .collect();
    found.sort();
    found.dedup();
    found.truncate(3);
    found.into_iter().map(|(_, c)| c.to_owned()).collect()
}
