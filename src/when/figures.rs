//! Sizes, counts and durations as people write and read them.

use crate::error::{Error, Result};
use std::time::Duration;

/// Parses a size: `500`, `10M`, `1.5GiB`, `20 MB`. `K`, `M`, `G`, `T`, `P`, `E` and `KiB`… count in 1024s, `KB`, `MB`… in 1000s;
/// a fraction of a byte is cut off.
pub fn parse_size(text: &str) -> Result<u64> {
    let refuse = |why: &str| {
        Err(Error::invalid("read the size", format_args!("\"{}\"", text.escape_debug()), why)
            .hint("write a size like 500, 10M, 1.5GiB or 20MB"))
    };
    let trimmed = text.trim();
    let number_bytes = trimmed.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = trimmed.split_at(number_bytes);
    let Some(scale) = scale(unit.trim_start()) else { return refuse("its unit is unknown") };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
        return refuse("it does not begin with a number");
    }
    if whole.len() > 20 || fraction.len() > 15 {
        return refuse("it has too many digits");
    }
    if scale == 1 && !fraction.is_empty() {
        return refuse("it has a fraction of a byte");
    }
    let digits = |part: &str| part.bytes().fold(0_u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
    let bytes = digits(whole) * scale + digits(fraction) * scale / 10_u128.pow(fraction.len() as u32);
    match u64::try_from(bytes) {
        Ok(bytes) => Ok(bytes),
        Err(_) => refuse("it is too large"),
    }
}

fn scale(unit: &str) -> Option<u128> {
    let unit = unit.to_ascii_lowercase();
    let (letter, base) = match unit.as_bytes() {
        [] | [b'b'] => return Some(1),
        [letter] | [letter, b'i', b'b'] | [letter, b'i'] => (letter, 1024_u128),
        [letter, b'b'] => (letter, 1000),
        _ => return None,
    };
    let power = b"kmgtpe".iter().position(|known| known == letter)?;
    Some(base.pow(power as u32 + 1))
}

/// Three significant digits in 1024s: `1023 B`, `1.50 KiB`, `12.3 MiB`, `345 GiB`.
pub fn format_bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    for unit in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        // Four digits are one too many: on to the next unit.
        if value < 999.5 {
            return format!("{} {unit}", three_digits(value));
        }
        value /= 1024.0;
    }
    format!("{} EiB", three_digits(value))
}

fn three_digits(value: f64) -> String {
    match value {
        v if v < 0.9995 => format!("{v:.3}"),
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// The two largest units: `0 ms`, `850 ms`, `12.3 s`, `3 min 5 s`, `2 h 3 min`, `4 d 2 h`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration.as_millis() {
        ms if ms < 1000 => format!("{ms} ms"),
        // Cut, not rounded, so that 59.99 s never reads as 60 s.
        ms if ms < 60_000 => format!("{}.{} s", ms / 1000, ms / 100 % 10),
        ms if ms < 3_600_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        ms if ms < 86_400_000 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A count with its noun: `1 file`, `1,234 files`.
pub fn format_counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", format_count(count), if count == 1 { one } else { many })
}

/// Groups of three digits: `1,234,567`.
pub fn format_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let table: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("500", Some(500)),
            ("7b", Some(7)),
            ("10M", Some(10 << 20)),
            ("10m", Some(10 << 20)),
            ("4Ki", Some(4096)),
            ("1.5GiB", Some(3 << 29)),
            (" 20 MB ", Some(20_000_000)),
            ("0.1KB", Some(100)),
            ("0.0001K", Some(0)),
            ("15E", Some(15 << 60)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("16E", None),
            ("99999999999999999999E", None),
            ("1.5", None),
            ("", None),
            (".5M", None),
            ("1.M", None),
            ("1.2.3M", None),
            ("-1", None),
            ("M", None),
            ("10X", None),
            ("10MiBs", None),
            ("1e3", None),
            ("\u{661}", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_size(text).ok(), *expected, "{text}");
        }
        assert!(parse_size("x").unwrap_err().advice().is_some());
    }

    #[test]
    fn figures_are_written_with_three_digits() {
        let table: &[(u64, &str)] = &[
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10_240, "10.0 KiB"),
            (1_023_000, "999 KiB"),
            (1_048_575, "1.00 MiB"),
            (1_030_000, "0.982 MiB"),
            (123 << 30, "123 GiB"),
            (1 << 40, "1.00 TiB"),
            (1 << 50, "1.00 PiB"),
            (1 << 60, "1.00 EiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, expected) in table {
            assert_eq!(format_bytes(*bytes), *expected, "{bytes}");
        }
        for (count, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(format_count(count), expected);
        }
        let table = [
            (0, "0 ms"),
            (850, "850 ms"),
            (12_399, "12.3 s"),
            (59_999, "59.9 s"),
            (185_000, "3 min 5 s"),
            (7_380_000, "2 h 3 min"),
            (353_000_000, "4 d 2 h"),
        ];
        for (ms, expected) in table {
            assert_eq!(format_duration(Duration::from_millis(ms)), expected);
        }
    }
}
