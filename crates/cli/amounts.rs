//! Amounts with a unit, as people write them: `20GB`, `30d`.

use std::time::Duration;

const SIZES: [(&str, f64); 10] = [
    ("b", 1.0),
    ("", 1.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("tb", 1e12),
    ("kib", 1024.0),
    ("mib", 1_048_576.0),
    ("gib", 1_073_741_824.0),
    ("tib", 1_099_511_627_776.0),
];

const TIMES: [(&str, f64); 5] = [("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0), ("w", 604_800.0)];

/// More than any disk holds, and exact as a float.
const MOST_BYTES: f64 = 1e15;
/// A century.
const MOST_SECONDS: f64 = 36_525.0 * 86_400.0;

/// A number of bytes; else what is allowed.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let allowed = "a number with B, KB, MB, GB, TB or KiB, MiB, GiB, TiB, such as 20GB";
    scaled(text, &SIZES)
        .filter(|bytes| *bytes <= MOST_BYTES)
        .map(|bytes| bytes as u64)
        .ok_or(allowed.to_owned())
}

/// A length of time; else what is allowed.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let allowed = "a number with s, m, h, d or w, such as 30d";
    let seconds = scaled(text, &TIMES).filter(|seconds| *seconds <= MOST_SECONDS);
    seconds.map(Duration::from_secs_f64).ok_or(allowed.to_owned())
}

/// A number that is not negative times its unit.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_their_units() {
        for (text, bytes) in
            [("20GB", 20_000_000_000), ("1.5 MiB", 1_572_864), ("7", 7), ("0", 0), ("3kb", 3000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, seconds) in
            [("30d", 2_592_000), ("1.5h", 5400), ("90m", 5400), ("2w", 1_209_600), ("0s", 0)]
        {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn other_amounts_are_refused() {
        for text in ["", "GB", "-1GB", "1e3", "1,5GB", "20 GBs", "1.2.3MB", "nan", "inf", "9999999TB"] {
            assert!(size(text).is_err(), "{text}");
        }
        for text in ["", "30", "d", "-1d", "30y", "30 days", "999999999w"] {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
