//! The store from the command line: opened where it is, and its times and sizes for people.

use std::path::Path;

use infill_store::{Asset, Store, iso};

use crate::failure::Result;
use crate::settings::Settings;

/// Opens the store that was typed or set; nothing is made where there is none.
pub(crate) fn open(settings: &Settings, typed: Option<&Path>) -> Result<Store> {
    Ok(Store::open_existing(&settings.store_dir(typed)?)?)
}

/// A time to the minute, in UTC.
pub(crate) fn minute(milliseconds: i64) -> String {
    iso(milliseconds).chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// A number of bytes in the unit that suits it, a thousand of each in the next.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// A number of something, in words.
pub(crate) fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Width and height, where they are known.
pub(crate) fn pixels(asset: &Asset) -> String {
    match (asset.meta.width, asset.meta.height) {
        (Some(width), Some(height)) => format!("{width}x{height}"),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (20_000_000_000, "20.0 GB")];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(u64::MAX), "18446744.1 TB");
        assert_eq!(
            [0, 1, 2].map(|number| counted(number, "picture")),
            ["0 pictures", "1 picture", "2 pictures"]
        );
        assert_eq!(minute(1_795_235_400_123), "2026-11-21 04:30");
    }
}
