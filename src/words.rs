//! Numbers of things, in words.

/// `1 frame`, `2 frames`.
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
