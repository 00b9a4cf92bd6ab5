//! JSON Schema as far as the tools' output schemas use it. A keyword that is not read here fails, and so does a property
//! that the schema does not name: what a reply holds must be told before it comes.

use serde_json::Value;

/// Fails where the value is not what the schema says; `at` is where it stands.
#[track_caller]
pub(crate) fn check(value: &Value, schema: &Value, at: &str) {
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "type" => assert!(is_type(value, rule), "{at} is {value}; the schema says {rule}"),
            "enum" => {
                assert!(rule.as_array().unwrap().contains(value), "{at} is {value}; the schema says {rule}")
            }
            "minimum" => assert!(value.as_f64() >= rule.as_f64(), "{at} is {value}; the schema says {rule}"),
            "maximum" => assert!(value.as_f64() <= rule.as_f64(), "{at} is {value}; the schema says {rule}"),
            "required" => {
                for name in rule.as_array().unwrap() {
                    assert!(value.get(name.as_str().unwrap()).is_some(), "{at} has no {name}: {value}");
                }
            }
            "properties" => {
                for (name, inner) in value.as_object().unwrap() {
                    let schema = rule.get(name).unwrap_or_else(|| panic!("the schema names no {at}.{name}"));
                    check(inner, schema, &format!("{at}.{name}"));
                }
            }
            "items" => {
                for (index, inner) in value.as_array().unwrap().iter().enumerate() {
                    check(inner, rule, &format!("{at}[{index}]"));
                }
            }
            "default" | "description" => {}
            other => panic!("{at}: nobody here reads the keyword {other}"),
        }
    }
}

fn is_type(value: &Value, rule: &Value) -> bool {
    match rule {
        Value::Array(any) => any.iter().any(|one| is_type(value, one)),
        _ => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "number" => value.is_number(),
            "integer" => value.is_i64() || value.is_u64(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("there is no type {other}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_schema_forbids_is_found() {
        let schema = json!({
            "type": "object",
            "properties": {
                "n": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
                "list": {"type": "array", "items": {"type": ["string", "null"], "enum": ["a", null]}}
            },
            "required": ["n"]
        });
        check(&json!({"n": 0.5, "list": ["a", null]}), &schema, "it");
        for wrong in [
            json!([]),
            json!({}),
            json!({"n": "0"}),
            json!({"n": -1}),
            json!({"n": 2}),
            json!({"n": 0, "list": ["b"]}),
            json!({"n": 0, "list": {}}),
            json!({"n": 0, "more": 1}),
        ] {
            let found = std::panic::catch_unwind(|| check(&wrong, &schema, "it"));
            assert!(found.is_err(), "{wrong}");
        }
    }
}
