//! A scheduler's configuration: what `scheduler_config.json` says, read as diffusers' `ConfigMixin` reads it.

use serde_json::{Map, Value};

use super::signature::{self, Assumed};
use super::{SchedulerKind, schedule};
use crate::{Error, Result};

/// A scheduler class and the values given for its keys; absent keys take the class's own defaults.
///
/// Keys that the class doesn't know are kept, for [`SchedulerConfig::with_class`], and otherwise ignored. Values are
/// checked when [`Scheduler::new`](super::Scheduler::new) reads them.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    kind: SchedulerKind,
    /// What was written down, for this class or another.
    given: Map<String, Value>,
    /// Defaults of this class that a pipeline replaced; they don't outlive the class.
    amended: Map<String, Value>,
}

impl SchedulerConfig {
    /// The field of a refusal whose value is a key, in quotation marks, that the class does not take.
    pub const UNKNOWN_KEY: &str = "the scheduler's key";

    /// A class with nothing but its defaults.
    pub fn new(kind: SchedulerKind) -> Self {
        Self { kind, given: Map::new(), amended: Map::new() }
    }

    /// From the content of `scheduler_config.json`; the class is its `_class_name`.
    ///
    /// # Errors
    /// Not an object, no `_class_name`, or a class that is not implemented.
    pub fn from_json(json: &Value) -> Result<Self> {
        let object =
            json.as_object().ok_or_else(|| refused("scheduler_config.json", json, "a JSON object".into()))?;
        let allowed = || SchedulerKind::ALL.map(SchedulerKind::name).join(", ");
        let class = object.get("_class_name").unwrap_or(&Value::Null);
        let kind = class
            .as_str()
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| refused("_class_name", class, allowed()))?;
        let given = object.iter().filter(|(key, _)| !key.starts_with('_'));
        Ok(Self { kind, given: given.map(|(k, v)| (k.clone(), v.clone())).collect(), amended: Map::new() })
    }

    /// The same configuration for another class, as diffusers' `OtherScheduler.from_config(scheduler.config)`: what
    /// was given is carried over where the new class knows the key; everything else takes the new class's defaults,
    /// not those of the old one.
    #[must_use]
    pub fn with_class(&self, kind: SchedulerKind) -> Self {
        Self { kind, given: self.given.clone(), amended: Map::new() }
    }

    /// Sets one key, as a keyword argument of diffusers' `from_config`.
    ///
    /// # Errors
    /// The class takes no such key.
    pub fn set(&mut self, key: &str, value: Value) -> Result<()> {
        if signature::default(self.kind, key).is_none() {
            let keys: Vec<&str> = signature::keys(self.kind).map(|&(name, _)| name).collect();
            let field = Self::UNKNOWN_KEY;
            return Err(Error::Refused { field, value: format!("\"{key}\""), allowed: keys.join(", ") });
        }
        self.given.insert(key.to_owned(), value);
        Ok(())
    }

    /// The configuration as `StableDiffusionInpaintPipeline.__init__` amends that of its checkpoint's scheduler:
    /// `steps_offset` becomes 1 and `skip_prk_steps` true. The pipeline of SDXL amends nothing, and neither does a
    /// scheduler put in later; so this comes before [`SchedulerConfig::with_class`].
    ///
    /// A key that was given stays amended in other classes. One that only had its default does not: diffusers still
    /// counts it as a default when the class changes.
    #[must_use]
    pub fn for_stable_diffusion(mut self) -> Self {
        if self.knows("steps_offset") && self.value("steps_offset").as_f64() != Some(1.0) {
            self.amend("steps_offset", Value::from(1));
        }
        if self.knows("skip_prk_steps") && self.value("skip_prk_steps") == Value::Bool(false) {
            self.amend("skip_prk_steps", Value::Bool(true));
        }
        self
    }

    /// The class.
    pub fn kind(&self) -> SchedulerKind {
        self.kind
    }

    /// How many noise levels the network was trained on.
    ///
    /// # Errors
    /// A value that is no such number.
    pub fn num_train_timesteps(&self) -> Result<usize> {
        schedule::train_timesteps(self)
    }

    /// Whether the class takes a value of this name, or the configuration has one.
    fn knows(&self, key: &str) -> bool {
        self.given.contains_key(key) || signature::default(self.kind, key).is_some()
    }

    fn amend(&mut self, key: &str, value: Value) {
        let values = if self.given.contains_key(key) { &mut self.given } else { &mut self.amended };
        values.insert(key.to_owned(), value);
    }

    /// The value of `key`: given, amended, or the class's default. Null for a key that is neither given nor known.
    fn value(&self, key: &str) -> Value {
        if let Some(value) = self.given.get(key).or_else(|| self.amended.get(key)) {
            return value.clone();
        }
        match signature::default(self.kind, key) {
            None | Some(Assumed::Null) => Value::Null,
            Some(Assumed::EmptyList) => Value::Array(Vec::new()),
            Some(Assumed::Flag(flag)) => Value::Bool(flag),
            Some(Assumed::Number(number)) => {
                serde_json::Number::from_f64(number).map_or_else(|| spelled(number), Value::Number)
            }
            Some(Assumed::Word(word)) => Value::from(word),
        }
    }

    /// A number.
    pub(super) fn number(&self, key: &'static str) -> Result<f64> {
        self.optional_number(key)?.ok_or_else(|| refused(key, &Value::Null, "a number".into()))
    }

    /// A number, or null. A key that the class doesn't know counts where it was given: diffusers looks up a few, such
    /// as `sigma_min`, in the configuration and not in the signature.
    pub(super) fn optional_number(&self, key: &'static str) -> Result<Option<f64>> {
        let value = self.value(key);
        match &value {
            Value::Null => Ok(None),
            Value::String(text) if text == "-Infinity" => Ok(Some(f64::NEG_INFINITY)),
            Value::Number(number) => Ok(number.as_f64()),
            _ => Err(refused(key, &value, "a number or null".into())),
        }
    }

    /// A whole number from 0 up.
    pub(super) fn count(&self, key: &'static str) -> Result<usize> {
        let value = self.value(key);
        let whole = value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..=1e15).contains(x));
        whole.map(|x| x as usize).ok_or_else(|| refused(key, &value, "a whole number from 0 up".into()))
    }

    /// A whole number from 0 up, or null.
    pub(super) fn optional_count(&self, key: &'static str) -> Result<Option<u64>> {
        let value = self.value(key);
        if value.is_null() {
            return Ok(None);
        }
        let refused = || refused(key, &value, "a whole number from 0 up, or null".into());
        value.as_u64().map(Some).ok_or_else(refused)
    }

    /// True or false.
    pub(super) fn flag(&self, key: &'static str) -> Result<bool> {
        let value = self.value(key);
        value.as_bool().ok_or_else(|| refused(key, &value, "true, false".into()))
    }

    /// One of `choices`, by name.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Result<T> {
        let value = self.value(key);
        let found = choices.iter().find(|(name, _)| value.as_str() == Some(name));
        found.map(|&(_, choice)| choice).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
            refused(key, &value, names.join(", "))
        })
    }

    /// One of `choices`, by name, or `null` for none.
    pub(super) fn choice_or<T: Copy>(&self, key: &'static str, null: T, choices: &[(&str, T)]) -> Result<T> {
        if self.value(key).is_null() { Ok(null) } else { self.choice(key, choices) }
    }

    /// A list of numbers, or null.
    pub(super) fn optional_numbers(&self, key: &'static str) -> Result<Option<Vec<f64>>> {
        let value = self.value(key);
        let numbers = match &value {
            Value::Null => return Ok(None),
            Value::Array(items) => items.iter().map(Value::as_f64).collect(),
            _ => None,
        };
        numbers.map(Some).ok_or_else(|| refused(key, &value, "null or a list of numbers".into()))
    }

    /// Refuses any value of `key` but `only`: the others change the mathematics and are not implemented.
    pub(super) fn only(&self, key: &'static str, only: impl Into<Value>) -> Result<()> {
        let (value, only) = (self.value(key), only.into());
        if value == only || value.as_f64().is_some_and(|x| Some(x) == only.as_f64()) {
            return Ok(());
        }
        Err(refused(key, &value, format!("{only}; the rest is not implemented")))
    }
}

/// How Python writes a number that JSON has no token for.
fn spelled(number: f64) -> Value {
    Value::from(if number.is_sign_negative() { "-Infinity" } else { "Infinity" })
}

fn refused(field: &'static str, value: &Value, allowed: String) -> Error {
    Error::Refused { field, value: value.to_string(), allowed }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn pndm() -> SchedulerConfig {
        SchedulerConfig::from_json(&json!({"_class_name": "PNDMScheduler", "beta_start": 0.00085})).unwrap()
    }

    #[test]
    fn absent_keys_take_the_defaults_of_the_class_in_force() {
        let ddim = pndm().with_class(SchedulerKind::Ddim);
        assert_eq!(ddim.number("beta_start").unwrap(), 0.00085);
        assert_eq!(ddim.number("beta_end").unwrap(), 0.02);
        assert!(ddim.flag("clip_sample").unwrap());
        assert!(ddim.flag("set_alpha_to_one").unwrap());
        assert!(!pndm().flag("set_alpha_to_one").unwrap());
    }

    #[test]
    fn an_amended_default_does_not_outlive_its_class() {
        let amended = pndm().for_stable_diffusion();
        assert_eq!(amended.count("steps_offset").unwrap(), 1);
        assert!(amended.flag("skip_prk_steps").unwrap());
        assert_eq!(amended.with_class(SchedulerKind::Ddim).count("steps_offset").unwrap(), 0);

        let mut given = pndm();
        given.set("steps_offset", json!(0)).unwrap();
        let given = given.for_stable_diffusion();
        assert_eq!(given.with_class(SchedulerKind::Ddim).count("steps_offset").unwrap(), 1);
    }

    #[test]
    fn refusals_say_what_is_allowed() {
        let mut config = pndm();
        config.set("beta_end", json!("much")).unwrap();
        let message = config.number("beta_end").unwrap_err().to_string();
        assert_eq!(message, "beta_end is \"much\"; allowed: a number or null");
        assert!(config.set("use_karras_sigmas", json!(true)).is_err());
        let unknown = SchedulerConfig::from_json(&json!({"_class_name": "EDMEulerScheduler"})).unwrap_err();
        assert!(
            unknown.to_string().starts_with("_class_name is \"EDMEulerScheduler\"; allowed: DDIMScheduler")
        );
    }
}
