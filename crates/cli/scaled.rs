//! `NAME[:SCALE]`, where names may have colons of their own.

use crate::failure::{Failure, Result};

/// Splits what was typed for `flag`, as [`split`] does.
///
/// # Errors
/// A scale that is no number behind a name that `exists`; `allowed` says which scales are.
pub(crate) fn read<'a>(
    flag: &str,
    text: &'a str,
    exists: impl Fn(&str) -> bool,
    allowed: &str,
) -> Result<(&'a str, Option<f64>)> {
    match misspelt(text, &exists) {
        Some((name, scale)) => Err(Failure::value(flag, format!("{name} at the scale \"{scale}\""), allowed)),
        None => Ok(split(text, exists)),
    }
}

/// Splits what was typed. The last `:NUMBER` is the scale, if what stands before it `exists` or the whole does not: a
/// file `a:1.png` is found without a scale, and with one as `a:1.png:0.5`.
fn split(text: &str, exists: impl Fn(&str) -> bool) -> (&str, Option<f64>) {
    let Some((name, number)) = text.rsplit_once(':') else { return (text, None) };
    match number.parse::<f64>() {
        Ok(scale) if !name.is_empty() && (exists(name) || !exists(text)) => (name, Some(scale)),
        _ => (text, None),
    }
}

/// What `exists` and the scale behind it that is no number, where that is what was typed.
fn misspelt(text: &str, exists: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
    let (name, scale) = text.rsplit_once(':')?;
    (!exists(text) && !scale.contains(['/', '\\']) && scale.parse::<f64>().is_err() && exists(name))
        .then_some((name, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_the_scale_unless_it_is_part_of_a_name() {
        let here = ["a.png", "b:1", "c:2:3", "c:2"];
        let exists = |name: &str| here.contains(&name);
        for (text, expected) in [
            ("a.png", ("a.png", None)),
            ("a.png:0.5", ("a.png", Some(0.5))),
            ("a.png:-1", ("a.png", Some(-1.0))),
            ("b:1", ("b:1", None)),
            ("b:1:0.25", ("b:1", Some(0.25))),
            // Both are there: the shorter one, since it was typed with a number.
            ("c:2:3", ("c:2", Some(3.0))),
            ("gone.png:0.5", ("gone.png", Some(0.5))),
            ("gone.png:x", ("gone.png:x", None)),
            ("a:b.png", ("a:b.png", None)),
            (":1", (":1", None)),
        ] {
            assert_eq!(split(text, exists), expected, "{text}");
        }
        assert_eq!(misspelt("a.png:abc", exists), Some(("a.png", "abc")));
        for text in ["a.png", "a.png:1", "b:1", "gone.png:x", "a.png:/x"] {
            assert_eq!(misspelt(text, exists), None, "{text}");
        }
    }
}
