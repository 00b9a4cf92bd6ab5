//! What the header of a LoRA says besides its tensors.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::key::{Network, Spelling};
use super::layout::ModelLayout;
use super::module::Parts;
use super::numbers;

/// diffusers' key for PEFT's configuration of each network, its keys behind the network's name.
const ADAPTER: &str = "lora_adapter_metadata";

/// The texts of the header that change the mathematics.
#[derive(Default)]
pub(super) struct Metadata {
    adapter: Map<String, Value>,
    texts: BTreeMap<String, String>,
}

impl Metadata {
    /// # Errors
    /// Which text can't be read or asks for what is not implemented, in words.
    pub(super) fn parse(texts: &BTreeMap<String, String>) -> Result<Self, String> {
        let adapter = match texts.get(ADAPTER).map(|text| serde_json::from_str(text)) {
            None => Map::new(),
            Some(Ok(Value::Object(adapter))) => adapter,
            Some(_) => return Err(format!("has metadata {ADAPTER} that are no JSON object")),
        };
        for (key, value) in &adapter {
            check(key, value)?;
        }
        Ok(Self { adapter, texts: texts.clone() })
    }

    /// `lora_alpha / r` of a module (PEFT, `tuners/lora/layer.py`: over the root of `r` with `use_rslora`), if the
    /// header has PEFT's configuration.
    pub(super) fn factor(&self, network: Network, module: &str, rank: usize) -> Option<f64> {
        let get = |key: &str| {
            self.adapter.get(&format!("{}.{key}", network.component())).or_else(|| self.adapter.get(key))
        };
        let alpha = get("lora_alpha")?.as_f64()?;
        let own = get("alpha_pattern").and_then(Value::as_object).and_then(|patterns| {
            patterns
                .iter()
                .find(|(pattern, _)| matches(pattern, module))
                .and_then(|(_, alpha)| alpha.as_f64())
        });
        let rank = rank as f64;
        let divisor = if get("use_rslora") == Some(&Value::Bool(true)) { rank.sqrt() } else { rank };
        Some(own.unwrap_or(alpha) / divisor)
    }

    /// Whether a tensor is a textual inversion beside the LoRA (github.com/cloneofsimo/lora).
    pub(super) fn is_word(&self, name: &str) -> bool {
        self.texts.get(name).is_some_and(|text| text == "<embed>")
    }

    /// Numbered modules mean what the header says that was looked for, and all of them must be there.
    ///
    /// # Errors
    /// What was looked for, or how many modules there are, in words.
    pub(super) fn check_numbers(
        &self,
        modules: &BTreeMap<(Option<Network>, Spelling), Parts>,
        model: &ModelLayout,
    ) -> Result<(), String> {
        let networks: [(Network, &[&str]); 2] =
            [(Network::Unet, &numbers::UNET_CLASSES), (Network::TextEncoder, &numbers::TEXT_CLASSES)];
        for (network, classes) in networks {
            let numbered = |(of, module): &&(Option<Network>, Spelling)| {
                *of == Some(network) && matches!(module, Spelling::Number(_))
            };
            let count = modules.keys().filter(numbered).count();
            if count == 0 {
                continue;
            }
            let text = self.texts.get(network.component()).map_or("", String::as_str);
            let mut found: Vec<String> = serde_json::from_str(text).unwrap_or_default();
            found.sort();
            if found != classes {
                return Err(format!(
                    "numbers its modules of {} by the classes {found:?}; read: {classes:?}",
                    network.component()
                ));
            }
            let wanted = model.network(network).map_or(0, |layout| layout.numbered());
            if count != wanted {
                return Err(format!(
                    "numbers {count} modules of {}, the model has {wanted}",
                    network.component()
                ));
            }
        }
        Ok(())
    }
}

/// Whether one of PEFT's patterns, which are ends of a module's path, means this module.
fn matches(pattern: &str, module: &str) -> bool {
    match pattern.strip_prefix('^') {
        Some(whole) => whole == module,
        None => module == pattern || module.strip_suffix(pattern).is_some_and(|head| head.ends_with('.')),
    }
}

/// Refuses a value of PEFT's configuration that changes the mathematics and is not implemented.
fn check(key: &str, value: &Value) -> Result<(), String> {
    let name = key.strip_prefix("text_encoder_2.").or_else(|| key.strip_prefix("text_encoder."));
    let name = name.or_else(|| key.strip_prefix("unet.")).unwrap_or(key);
    let refuse = |allowed: &str| Err(format!("has {key} = {value} in its {ADAPTER}; read: {allowed}"));
    match name {
        "lora_alpha" if !value.is_number() && !value.is_null() => refuse("a number"),
        "use_rslora" if !value.is_boolean() && !value.is_null() => refuse("true, false"),
        "fan_in_fan_out" if value == &Value::Bool(true) => refuse("false"),
        "peft_type" if value != "LORA" => refuse("LORA"),
        // These change the model's own weights before training begins.
        "init_lora_weights" => match value.as_str() {
            Some(kind)
                if ["pissa", "olora", "loftq", "corda", "lora_ga"].iter().any(|k| kind.starts_with(k)) =>
            {
                refuse("true, false, gaussian, eva, orthogonal")
            }
            _ => Ok(()),
        },
        "alpha_pattern" => {
            let plain = |pattern: &String| {
                pattern
                    .chars()
                    .enumerate()
                    .all(|(at, c)| c.is_alphanumeric() || "._".contains(c) || at == 0 && c == '^')
            };
            match value {
                Value::Null => Ok(()),
                Value::Object(patterns) if !patterns.values().all(Value::is_number) => {
                    refuse("a number for each name of a module")
                }
                Value::Object(patterns) if patterns.keys().all(plain) => Ok(()),
                _ => refuse("names of modules"),
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(adapter: &str) -> Result<(), String> {
        Metadata::parse(&BTreeMap::from([(ADAPTER.to_owned(), adapter.to_owned())])).map(|_| ())
    }

    #[test]
    fn values_of_another_type_are_refused_with_their_key() {
        for (key, value, allowed) in [
            ("unet.lora_alpha", r#""8""#, "a number"),
            ("lora_alpha", "[8]", "a number"),
            ("text_encoder.use_rslora", r#""true""#, "true, false"),
            ("unet.use_rslora", "1", "true, false"),
            ("unet.alpha_pattern", "[]", "names of modules"),
            ("unet.alpha_pattern", r#"{"to_q.*": 8}"#, "names of modules"),
            ("text_encoder_2.alpha_pattern", r#"{"to_q": "8"}"#, "a number for each"),
        ] {
            let error = parse(&format!("{{\"{key}\": {value}}}")).err().unwrap_or_default();
            assert!(error.contains(key) && error.contains(&format!("read: {allowed}")), "{key}: {error}");
        }
    }

    #[test]
    fn values_of_their_type_and_none_are_read() {
        let typed = r#"{"unet.lora_alpha": 4.5, "use_rslora": false, "unet.alpha_pattern": {"^a.to_q": 8}}"#;
        assert_eq!(parse(typed), Ok(()));
        assert_eq!(parse(r#"{"unet.lora_alpha": null, "use_rslora": null, "alpha_pattern": null}"#), Ok(()));
    }
}
