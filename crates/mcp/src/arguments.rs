//! Reads a tool's arguments by hand and collects every fault, so that a model can mend all of them at once. Each
//! fault is one sentence: the field, its value, and what is allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};

/// Characters of a value that a sentence shows.
const SHOWN: usize = 60;
/// Faults of one kind that are told one by one: a call may hold millions.
pub(crate) const MOST_FAULTS: usize = 50;
/// Characters of a whole sentence.
const LONGEST: usize = 3000;

/// The arguments of one call.
pub(crate) struct Arguments<'a> {
    given: &'a Map<String, Value>,
    properties: &'a Map<String, Value>,
    /// What is wrong so far, in the order in which it was found.
    pub(crate) faults: Vec<String>,
}

impl<'a> Arguments<'a> {
    /// `properties` and `required` are the tool's published schema: names that are not in it are faults.
    pub(crate) fn new(given: &'a Map<String, Value>, schema: &'a Map<String, Value>) -> Self {
        static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&NONE);
        let mut arguments = Self { given, properties, faults: Vec::new() };
        let names: Vec<&str> = properties.keys().map(String::as_str).collect();
        let mut unknown = given.keys().filter(|name| !properties.contains_key(*name));
        for name in unknown.by_ref().take(MOST_FAULTS) {
            let fault = format!("{} is not a parameter; allowed: {}", shorten(name), names.join(", "));
            arguments.faults.push(fault);
        }
        match unknown.count() {
            0 => {}
            more => arguments.faults.push(format!("{more} more names are not parameters")),
        }
        for name in
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            if !given.contains_key(name) {
                let kind = properties.get(name).and_then(|p| p.get("type")).and_then(Value::as_str);
                arguments.faults.push(format!("{name} is missing; allowed: a {}", kind.unwrap_or("value")));
            }
        }
        arguments
    }

    /// True where the call names this parameter, whatever its value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Adds the fault that `name` has this value.
    pub(crate) fn refuse(&mut self, name: &str, value: impl Display, allowed: impl Display) {
        self.faults.push(format!("{name} is {value}; allowed: {allowed}"));
    }

    /// A string.
    pub(crate) fn text(&mut self, name: &str) -> Option<&'a str> {
        self.typed(name, Value::as_str, "a string")
    }

    /// The id of an asset or a job.
    pub(crate) fn id<I: FromStr<Err = infill_store::Error>>(&mut self, name: &str) -> Option<I> {
        match self.text(name)?.parse() {
            Ok(id) => Some(id),
            Err(error) => {
                self.faults.push(format!("{name}: {error}"));
                None
            }
        }
    }

    /// A boolean.
    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        self.typed(name, Value::as_bool, "true or false")
    }

    /// A boolean that the schema writes as a string.
    pub(crate) fn text_flag(&mut self, name: &str) -> Option<bool> {
        match self.text(name)? {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                self.refuse(name, show_text(other), "\"true\" or \"false\"");
                None
            }
        }
    }

    /// A number within a range.
    pub(crate) fn number(&mut self, name: &str, range: &RangeInclusive<f64>) -> Option<f64> {
        let allowed = format!("a number from {} to {}", range.start(), range.end());
        let value = self.typed(name, Value::as_f64, &allowed)?;
        if range.contains(&value) {
            return Some(value);
        }
        self.refuse(name, value, allowed);
        None
    }

    /// A whole number within a range, a multiple of `step`; `2.0` is whole.
    pub(crate) fn whole(&mut self, name: &str, range: &RangeInclusive<u32>, step: u32) -> Option<u32> {
        self.whole_of(name, range, step, "")
    }

    /// As [`Arguments::whole`]; `whose` stands behind the range in a refusal.
    pub(crate) fn whole_of(
        &mut self,
        name: &str,
        range: &RangeInclusive<u32>,
        step: u32,
        whose: &str,
    ) -> Option<u32> {
        let kind = match step {
            1 => "a whole number".to_owned(),
            _ => format!("a multiple of {step}"),
        };
        let allowed = format!("{kind} from {} to {}{whose}", range.start(), range.end());
        let value = self.typed(name, Value::as_f64, &allowed)?;
        let whole = value as u32;
        if f64::from(whole) == value && range.contains(&whole) && whole.is_multiple_of(step) {
            return Some(whole);
        }
        self.refuse(name, value, allowed);
        None
    }

    /// A string out of the schema's own `enum`.
    pub(crate) fn choice(&mut self, name: &str) -> Option<&'a str> {
        let value = self.text(name)?;
        let allowed = self.properties.get(name).and_then(|p| p.get("enum")).and_then(Value::as_array);
        let allowed: Vec<&str> = allowed.into_iter().flatten().filter_map(Value::as_str).collect();
        if allowed.contains(&value) {
            return Some(value);
        }
        self.refuse(name, show_text(value), allowed.join(", "));
        None
    }

    /// An array.
    pub(crate) fn array(&mut self, name: &str) -> Option<&'a [Value]> {
        self.typed(name, |value| value.as_array().map(Vec::as_slice), "an array")
    }

    fn typed<T>(&mut self, name: &str, read: impl Fn(&'a Value) -> Option<T>, allowed: &str) -> Option<T> {
        let value = self.given.get(name)?;
        let read = read(value);
        if read.is_none() {
            self.refuse(name, show(value), allowed);
        }
        read
    }
}

/// A value as a sentence shows it.
pub(crate) fn show(value: &Value) -> String {
    match value {
        Value::String(text) => show_text(text),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(_) => "an object".into(),
        other => other.to_string(),
    }
}

/// A text in quotes, cut where it is long.
pub(crate) fn show_text(text: &str) -> String {
    let characters = text.chars().count();
    if characters <= SHOWN {
        return format!("{text:?}");
    }
    format!("{:?}... ({characters} characters)", shorten(text))
}

/// A sentence as an answer holds it: cut where it is endless.
pub(crate) fn bounded(sentence: &str) -> String {
    match sentence.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &sentence[..end]),
        None => sentence.to_owned(),
    }
}

/// The beginning of a text.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let schema = object(&json!({
            "properties": {
                "text": {"type": "string"}, "flag": {"type": "boolean"}, "number": {"type": "number"},
                "whole": {"type": "number"}, "side": {"type": "number"}, "word": {"type": "string", "enum": ["a", "b"]},
                "list": {"type": "array"}, "missing": {"type": "string"}
            },
            "required": ["missing"]
        }));
        let given = object(&json!({
            "text": 7, "flag": "true", "number": 2, "whole": 1.5, "side": 68, "word": "c", "list": {}, "other": null
        }));
        let mut arguments = Arguments::new(&given, &schema);
        assert_eq!(arguments.text("text"), None);
        assert_eq!(arguments.flag("flag"), None);
        assert_eq!(arguments.number("number", &(0.01..=1.0)), None);
        assert_eq!(arguments.whole("whole", &(1..=150), 1), None);
        assert_eq!(arguments.whole("side", &(64..=1024), 8), None);
        assert_eq!(arguments.choice("word"), None);
        assert_eq!(arguments.array("list"), None);
        assert_eq!(
            arguments.faults,
            [
                "other is not a parameter; allowed: text, flag, number, whole, side, word, list, missing",
                "missing is missing; allowed: a string",
                "text is 7; allowed: a string",
                "flag is \"true\"; allowed: true or false",
                "number is 2; allowed: a number from 0.01 to 1",
                "whole is 1.5; allowed: a whole number from 1 to 150",
                "side is 68; allowed: a multiple of 8 from 64 to 1024",
                "word is \"c\"; allowed: a, b",
                "list is an object; allowed: an array",
            ]
        );
    }

    #[test]
    fn endless_faults_of_one_kind_are_counted() {
        let given: Map<String, Value> = (0..1000).map(|n| (format!("p{n}"), Value::Null)).collect();
        let faults = Arguments::new(&given, &Map::new()).faults;
        assert_eq!(faults.len(), MOST_FAULTS + 1);
        assert_eq!(faults.last().unwrap(), "950 more names are not parameters");
    }

    #[test]
    fn numbers_at_the_edges_and_beyond_all_bounds() {
        let schema = object(&json!({"properties": {"n": {}}}));
        for (value, expected) in [
            (json!(1), Some(1)),
            (json!(150.0), Some(150)),
            (json!(0), None),
            (json!(1e300), None),
            (json!(-1), None),
        ] {
            let given = object(&json!({ "n": value }));
            assert_eq!(Arguments::new(&given, &schema).whole("n", &(1..=150), 1), expected);
        }
    }

    #[test]
    fn long_values_are_cut() {
        let shown = show_text(&"é".repeat(5000));
        assert!(shown.ends_with("(5000 characters)") && shown.len() < 200);
    }
}
