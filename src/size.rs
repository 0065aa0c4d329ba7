//! Sizes of memory as text: `512MiB`, `3GiB`, `2GB`, or plain bytes.

/// Units by name, in bytes; those that a number stands for when it is shown come first, largest first.
const UNITS: [(&str, u64); 9] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
];

/// Reads a size, whatever its case: a number that may have a fraction, and a unit; bytes without one.
///
/// # Errors
/// What was expected, for a text that is no size, a size of 0, or one that no machine has.
pub fn parse(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a size such as 512MiB, 3GiB, 2GB or a number of bytes";
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim();
    let factor = if unit.is_empty() || unit.eq_ignore_ascii_case("b") {
        1
    } else {
        let known = UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit));
        known.map(|(_, factor)| *factor).ok_or(EXPECTED)?
    };
    if factor == 1 && number.contains('.') {
        return Err(EXPECTED.to_owned());
    }
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor).ok_or(EXPECTED)?,
        Err(_) => (number.parse::<f64>().map_err(|_| EXPECTED)? * factor as f64) as u64,
    };
    if bytes == 0 || bytes > i64::MAX as u64 {
        return Err(EXPECTED.to_owned());
    }
    Ok(bytes)
}

/// A number of bytes as an argument, rounded up: `133MiB`.
pub fn in_mib(bytes: u64) -> String {
    format!("{}MiB", bytes.div_ceil(1 << 20))
}

/// A number of bytes for people: `1.50 GiB`, `133 MiB`, `512 B`.
pub fn show(bytes: u64) -> String {
    for (name, factor) in &UNITS[..3] {
        if bytes >= *factor {
            let number = bytes as f64 / *factor as f64;
            let digits = match number {
                n if n < 10.0 => 2,
                n if n < 100.0 => 1,
                _ => 0,
            };
            return format!("{number:.digits$} {name}");
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::{parse, show};

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        assert_eq!(parse("512MiB"), Ok(512 << 20));
        assert_eq!(parse("3GiB"), Ok(3 << 30));
        assert_eq!(parse("2GB"), Ok(2_000_000_000));
        assert_eq!(parse("1.5 gib"), Ok(3 << 29));
        assert_eq!(parse("1048576"), Ok(1 << 20));
        assert_eq!(parse("4096 B"), Ok(4096));
        for wrong in [
            "",
            "GiB",
            "0",
            "-1",
            "3 TiB",
            "1.5",
            "1e9",
            "3GiB!",
            "99999999999GiB",
            ".",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_shown_in_three_digits() {
        assert_eq!(show(512), "512 B");
        assert_eq!(show(3 << 29), "1.50 GiB");
        assert_eq!(show(133 << 20), "133 MiB");
        assert_eq!(show(10 << 10), "10.0 KiB");
    }
}
