//! Reading a `config.json` whose every key has a default.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// `json` as the configuration of `component`.
///
/// # Errors
/// [`Error::Config`] naming the first key whose value is of the wrong kind.
pub(crate) fn read<T: DeserializeOwned>(component: &str, json: &Value) -> Result<T> {
    T::deserialize(json).map_err(|error| {
        // The parser doesn't say which key it was at. Each key alone is a configuration too, so the culprit shows.
        let alone = |(key, value): (&String, &Value)| {
            let object = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
            T::deserialize(&object).err().map(|error| format!("{key} is {value}: {error}"))
        };
        let culprit = json.as_object().and_then(|object| object.iter().find_map(alone));
        Error::Config {
            component: component.to_owned(),
            reason: culprit.unwrap_or_else(|| error.to_string()),
        }
    })
}
