//! Numbers for people: bytes, counts, durations, and sizes as people type them.

use std::time::Duration;

const BINARY: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Bytes with a binary unit (`1.50 GiB`).
pub fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.995 && unit + 1 < BINARY.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", BINARY[unit])
}

/// A count as model cards write it (`6.74 B`, `134 M`, `260 K`).
pub fn count(count: u64) -> String {
    let value = count as f64;
    let (value, unit) = match count {
        0..1_000 => return count.to_string(),
        1_000..999_500 => (value / 1e3, "K"),
        999_500..999_500_000 => (value / 1e6, "M"),
        _ => (value / 1e9, "B"),
    };
    let places = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.places$} {unit}")
}

/// A duration with three digits (`12.3 ms`, `4.56 s`).
pub fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        0.0..0.001 => format!("{:.0} µs", seconds * 1e6),
        0.001..1.0 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

/// Seconds as [`seconds`] writes them, 0 if they are no length of time.
pub fn time(length: f64) -> String {
    seconds(Duration::try_from_secs_f64(length).unwrap_or_default())
}

/// How long ago something was (`just now`, `3 hours ago`).
pub fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (count, unit) = match seconds {
        0..60 => return "just now".to_string(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// Reads a size in bytes: a bare number, or one with K, M, G or T (powers of 1024, also KiB, MiB …) or
/// KB, MB … (powers of 1000).
///
/// # Errors
/// A sentence that says what is accepted.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is no size; write bytes, or a number with K, M, G or T, such as 2G or 512MiB");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim().to_ascii_lowercase();
    let base: f64 = if unit.len() == 2 && unit.ends_with('b') { 1000.0 } else { 1024.0 };
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(wrong()),
    };
    let size = number * base.powi(power);
    if size >= 1.0 && size < 2f64.powi(63) { Ok(size as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        let sizes =
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (5 << 30, "5.00 GiB"), (1048575, "1.00 MiB")];
        for (value, text) in sizes {
            assert_eq!(bytes(value), text);
        }
        for (value, text) in [(7, "7"), (260_032, "260 K"), (6_738_415_616, "6.74 B"), (999_999, "1.00 M")] {
            assert_eq!(count(value), text);
        }
    }

    #[test]
    fn ages_are_told_in_the_largest_unit() {
        for (seconds, text) in [
            (0, "just now"),
            (59, "just now"),
            (60, "1 minute ago"),
            (7199, "1 hour ago"),
            (86_399, "23 hours ago"),
            (864_000, "10 days ago"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        let good =
            [("2G", 2 << 30), ("512MiB", 512 << 20), ("1.5k", 1536), ("5GB", 5_000_000_000), ("77", 77)];
        for (text, size) in good {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "G", "-1", "1X", "0", "1e9", "99999999T", "1.2.3"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
