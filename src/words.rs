//! Numbers of things, in words.

/// `1 frame`, `2 frames`.
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// `object 3`, or `objects 1, 2, 5`, or `None` without objects.
pub(crate) fn listed(objects: impl Iterator<Item = u32>) -> Option<String> {
    let names: Vec<String> = objects.map(|object| object.to_string()).collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    (!names.is_empty()).then(|| format!("object{plural} {}", names.join(", ")))
}
