//! Prompts for the three usual jobs: each becomes the request that makes a model call the right tool with the right
//! arguments.

use infill_models::adapters::AdapterPurpose;
use infill_models::embedded;
use rmcp::model::{ErrorData, GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role};
use serde_json::{Map, Value, json};

use crate::arguments::{Arguments, show_text};
use crate::pictures::Source;
use crate::reply;
use crate::studio::Studio;
use crate::tools::Kind;

/// What an argument takes, and so how it is checked and completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// An asset id or a link to one, or a file under an allowed folder. A data URL would have to be typed by the model.
    Picture,
    /// The name of a model.
    Model,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Words.
    Text,
}

/// An argument of a prompt.
pub(crate) struct Argument {
    pub(crate) name: &'static str,
    description: &'static str,
    required: bool,
    pub(crate) takes: Takes,
}

/// A prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// Something goes, and what is around it goes on.
    Remove,
    /// Something becomes something else.
    Replace,
    /// Something becomes what a reference shows.
    Match,
}

const IMAGE: Argument = Argument {
    name: "image",
    description: "The picture: an asset id or a link to one, or a path or file:// URL under a folder that the server allows",
    required: true,
    takes: Takes::Picture,
};
const MASK: Argument = Argument {
    name: "mask",
    description: "The mask, of the picture's size: white where to paint, black where to keep",
    required: true,
    takes: Takes::Picture,
};
const MODEL: Argument = Argument {
    name: "modelId",
    description: "The model to run; without it, the best for the job of those on this machine",
    required: false,
    takes: Takes::Model,
};

const REMOVE: &[Argument] = &[
    IMAGE,
    MASK,
    Argument {
        name: "object",
        description: "What is removed, such as: the lamp post",
        required: false,
        takes: Takes::Text,
    },
    Argument {
        name: "background",
        description: "What is behind it, such as: a sandy beach. Without it the model is asked to look",
        required: false,
        takes: Takes::Text,
    },
    MODEL,
];
const REPLACE: &[Argument] = &[
    IMAGE,
    MASK,
    Argument {
        name: "replacement",
        description: "What is to be there instead, such as: a wooden bench, in the style of the picture",
        required: true,
        takes: Takes::Text,
    },
    MODEL,
];
const MATCH: &[Argument] = &[
    IMAGE,
    MASK,
    Argument {
        name: "reference",
        description: "The picture that shows how it is to look, given as image is",
        required: true,
        takes: Takes::Picture,
    },
    Argument {
        name: "prompt",
        description: "What is to be painted, such as: a jacket of this cloth",
        required: true,
        takes: Takes::Text,
    },
    Argument {
        name: "ipAdapterType",
        description: "style for colours, material and manner, character for the whole look; style without it",
        required: false,
        takes: Takes::Choice(&["style", "character"]),
    },
    MODEL,
];

impl Recipe {
    /// In the order in which they are listed.
    const ALL: [Self; 3] = [Self::Remove, Self::Replace, Self::Match];

    /// The prompt of this name.
    ///
    /// # Errors
    /// A name that none has.
    pub(crate) fn named(name: &str) -> Result<Self, ErrorData> {
        Self::ALL.into_iter().find(|recipe| recipe.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            ErrorData::invalid_params(
                format!("there is no prompt {}; allowed: {names}", show_text(name)),
                None,
            )
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Replace => "replace",
            Self::Match => "match-reference",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Remove => "Remove something from a picture",
            Self::Replace => "Replace something in a picture",
            Self::Match => "Paint after a reference picture",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Remove => "Takes what the mask covers out of a picture and goes on with what is around it.",
            Self::Replace => "Paints something else where the mask is white.",
            Self::Match => "Paints where the mask is white so that it looks as a reference picture shows.",
        }
    }

    pub(crate) fn arguments(self) -> &'static [Argument] {
        match self {
            Self::Remove => REMOVE,
            Self::Replace => REPLACE,
            Self::Match => MATCH,
        }
    }
}

/// All prompts.
pub(crate) fn list() -> Vec<Prompt> {
    let argument = |one: &Argument| {
        PromptArgument::new(one.name).with_description(one.description).with_required(one.required)
    };
    let prompt = |recipe: Recipe| {
        let arguments = recipe.arguments().iter().map(argument).collect();
        Prompt::new(recipe.name(), Some(recipe.description()), Some(arguments)).with_title(recipe.title())
    };
    Recipe::ALL.map(prompt).into()
}

/// A prompt, filled in.
///
/// # Errors
/// An unknown prompt; arguments that the call would refuse anyway, all of them at once; no model to run.
pub(crate) fn get(
    studio: &Studio,
    name: &str,
    given: Option<&JsonObject>,
) -> Result<GetPromptResult, ErrorData> {
    let recipe = Recipe::named(name)?;
    let filled = fill(studio, recipe, given)
        .map_err(|faults| ErrorData::invalid_params(reply::faults(&faults), None))?;
    let message = PromptMessage::new_text(Role::User, filled);
    Ok(GetPromptResult::new(vec![message]).with_description(recipe.description()))
}

fn fill(studio: &Studio, recipe: Recipe, given: Option<&JsonObject>) -> Result<String, Vec<String>> {
    // Hosts send an empty string for a field that was left empty.
    let mut given = given.cloned().unwrap_or_default();
    given.retain(|_, value| value != "");
    let schema = schema(recipe);
    let mut from = Arguments::new(&given, &schema);
    let mut values = Map::new();
    for argument in recipe.arguments() {
        let text = match argument.takes {
            Takes::Choice(_) => from.choice(argument.name),
            _ => from.text(argument.name),
        };
        let Some(text) = text else { continue };
        let refusal = match argument.takes {
            Takes::Picture => picture_refusal(text),
            Takes::Model => studio.holdings.checkpoint(text).err(),
            Takes::Choice(_) | Takes::Text => None,
        };
        if let Some((value, allowed)) = refusal {
            from.refuse(argument.name, value, allowed);
        } else {
            values.insert(argument.name.to_owned(), json!(text));
        }
    }
    if !from.faults.is_empty() {
        return Err(from.faults);
    }
    let purpose = (recipe == Recipe::Match).then(|| match values.get("ipAdapterType") {
        Some(Value::String(text)) if text == "character" => AdapterPurpose::Character,
        _ => AdapterPurpose::Style,
    });
    if !values.contains_key(MODEL.name) {
        let suggested = studio.holdings.suggested_model(purpose).ok_or_else(|| {
            vec![
                "modelId is missing, and no model on this machine can be opened; infill models list names those that \
                 are here or can be fetched"
                    .into(),
            ]
        })?;
        values.insert(MODEL.name.to_owned(), json!(suggested));
    }
    Ok(message(recipe, purpose, &values))
}

/// The arguments as [`Arguments`] reads them.
fn schema(recipe: Recipe) -> Map<String, Value> {
    let property = |one: &Argument| match one.takes {
        Takes::Choice(allowed) => json!({ "type": "string", "enum": allowed }),
        _ => json!({ "type": "string" }),
    };
    let all = recipe.arguments();
    let properties: Map<String, Value> = all.iter().map(|one| (one.name.to_owned(), property(one))).collect();
    let required: Vec<Value> = all.iter().filter(|one| one.required).map(|one| json!(one.name)).collect();
    Map::from_iter([("properties".to_owned(), properties.into()), ("required".to_owned(), required.into())])
}

/// What is wrong with a picture, as far as that can be told without reading it.
fn picture_refusal(text: &str) -> Option<(String, String)> {
    match Source::read(text) {
        Ok(Source::Asset(_) | Source::File(_)) => None,
        Ok(Source::Data(_)) => {
            let allowed = format!("{}; a model can't repeat a data URL", Source::SHORT);
            Some((show_text(text), allowed))
        }
        Err((value, allowed)) => Some((value, allowed.replace(Source::ALLOWED, Source::SHORT))),
    }
}

/// What is said of the words that the built-in model knows.
const FEW_WORDS: &str = "This model is the small one that is part of the server. It knows circle, square, triangle, \
    star, heart, diamond, cross, ring, moon, arrow, flower and house, each red, orange, yellow, green, cyan, blue, \
    purple, pink, brown, black, gray or white, and the styles flat, outlined, shaded, pencil drawing and neon, such as: \
    a small blue heart, pencil drawing. If prompt says something else, put it into these words, or tell me that another \
    model is needed (infill models list).";

/// The words of the message. `values` are checked, and name a model.
fn message(recipe: Recipe, purpose: Option<AdapterPurpose>, values: &Map<String, Value>) -> String {
    let text = |name: &str| values.get(name).and_then(Value::as_str);
    let is_built_in = text(MODEL.name) == Some(embedded::ID);
    let (tool, wanted, mut call) = match recipe {
        // To this model empty words mean just that, and it would paint others, whatever they say.
        Recipe::Remove if is_built_in => {
            let object = text("object").unwrap_or("what the white part of the mask covers");
            (Kind::Inpaint, format!("Remove {object} from a picture."), json!({ "prompt": "" }))
        }
        Recipe::Remove => {
            let object = text("object").unwrap_or("what the white part of the mask covers");
            let prompt = text("background").unwrap_or("the empty background, going on as it is around");
            let mut call = json!({ "prompt": prompt });
            if let Some(object) = text("object") {
                call["negativePrompt"] = json!(object);
            }
            (Kind::Inpaint, format!("Remove {object} from a picture."), call)
        }
        Recipe::Replace => {
            let replacement = text("replacement").unwrap_or_default();
            let wanted = format!("Paint this where the mask is white: {replacement}.");
            (Kind::Inpaint, wanted, json!({ "prompt": replacement }))
        }
        Recipe::Match => {
            let prompt = text("prompt").unwrap_or_default();
            let mut call = json!({ "prompt": prompt });
            call["ipAdapterImages"] = json!([text("reference").unwrap_or_default()]);
            call["ipAdapterType"] = json!(text("ipAdapterType").unwrap_or("style"));
            let wanted = format!(
                "Paint this where the mask is white, so that it looks as the reference shows: {prompt}."
            );
            (Kind::InpaintIpAdapter, wanted, call)
        }
    };
    for name in ["modelId", "image", "mask"] {
        call[name] = values.get(name).cloned().unwrap_or_default();
    }
    // What was there must not show through where something else is to be; its shapes carry a material.
    call["strength"] = json!(if purpose == Some(AdapterPurpose::Style) { 0.75 } else { 0.99 });
    call["numSamples"] = json!(1);
    let mut lines = vec![
        wanted,
        format!("Call the tool {} with these arguments:", tool.name()),
        format!("```json\n{call:#}\n```"),
    ];
    match recipe {
        Recipe::Remove if is_built_in => lines.push(
            "Leave prompt empty: this model, the small one that is part of the server, then goes on with what is around \
             the mask, and knows no words for that."
                .into(),
        ),
        Recipe::Remove if text("background").is_none() => lines.push(
            "If you can see the picture, first put into prompt what is around the mask, in a few words, such as: a \
             sandy beach."
                .into(),
        ),
        Recipe::Replace | Recipe::Match if is_built_in => lines.push(FEW_WORDS.into()),
        _ => {}
    }
    let again =
        if recipe == Recipe::Remove && is_built_in { "another seed" } else { "another seed or other words" };
    lines.push(format!(
        "Then show the result, and tell me its asset id, where it is and its seed. If it is not what was asked for, \
         say what is wrong, and try {again} before you ask me for another mask."
    ));
    lines.join("\n\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tools::inpaint::Inpaint;

    const ASSET: &str = "asset_GTrL3mq4SXWyMxkOHRxlpw";

    #[test]
    fn what_a_prompt_says_is_a_call_that_the_tool_takes() {
        let calls = Recipe::ALL.into_iter().flat_map(|recipe| [(recipe, "word"), (recipe, embedded::ID)]);
        for (recipe, model) in calls {
            let mut values = Map::new();
            for argument in recipe.arguments() {
                let value = match argument.takes {
                    Takes::Picture => ASSET,
                    Takes::Choice(allowed) => allowed[1],
                    Takes::Model => model,
                    Takes::Text => "word",
                };
                values.insert(argument.name.to_owned(), json!(value));
            }
            for purpose in [None, Some(AdapterPurpose::Character)] {
                let message = message(recipe, purpose, &values);
                let call = message.split("```json\n").nth(1).unwrap().split("\n```").next().unwrap();
                let call: Map<String, Value> = serde_json::from_str(call).unwrap();
                let kind = Kind::ALL
                    .into_iter()
                    .find(|kind| message.contains(&format!("{} ", kind.name())))
                    .unwrap();
                assert_eq!(kind == Kind::InpaintIpAdapter, recipe == Recipe::Match);
                let (inpaint, faults) = Inpaint::read(kind, &call, None);
                assert!(
                    faults.is_empty() && inpaint.warnings.is_empty(),
                    "{faults:?} {:?}",
                    inpaint.warnings
                );
                assert_eq!(inpaint.samples, 1);
                let built_in = model == embedded::ID;
                assert_eq!(inpaint.prompt.is_empty(), built_in && recipe == Recipe::Remove);
                assert_eq!(inpaint.negative_prompt.is_some(), !built_in && recipe == Recipe::Remove);
                assert_eq!(message.contains("star, heart"), built_in && recipe != Recipe::Remove);
                assert_eq!(message.contains("Leave prompt empty"), built_in && recipe == Recipe::Remove);
            }
        }
    }

    #[test]
    fn a_picture_is_no_data_url() {
        assert!(picture_refusal("data:image/png;base64,AAEC").unwrap().1.contains("asset id"));
        for text in ["cat.png", "http:cat.png"] {
            let allowed = picture_refusal(text).unwrap().1;
            assert!(allowed.starts_with(Source::SHORT) && !allowed.contains("data URL"), "{allowed}");
        }
        assert_eq!(picture_refusal(ASSET), None);
        assert_eq!(picture_refusal("file:///a.png"), None);
    }
}
