//! The prompts of a request: parsed, tokenized for each text encoder, and what their writer should know of them.

use infill_networks::prompt::{Chunks, Limit, Note, Noted, Prompt};

use super::Pipeline;
use crate::Result;
use crate::guidance::Guidance;
use crate::request::{InpaintParams, InpaintRequest, PROMPT_LIMIT, PromptSyntax};

/// The longest quotation in a warning, in characters.
const QUOTED: usize = 120;
/// Notes on one text's brackets that are told one by one.
const MOST_NOTES: usize = 10;

/// What each of two text encoders reads.
pub(super) type Texts = [String; 2];

/// The prompt's texts.
pub(super) fn positive(params: &InpaintParams) -> Texts {
    texts(&params.prompt, params.prompt_2.as_ref())
}

/// The negative prompt's texts; an absent one reads as empty.
pub(super) fn negative(params: &InpaintParams) -> Texts {
    texts(params.negative_prompt.as_deref().unwrap_or_default(), params.negative_prompt_2.as_ref())
}

fn texts(first: &str, second: Option<&String>) -> Texts {
    let second = second.filter(|text| !text.is_empty());
    [first.to_owned(), second.map_or_else(|| first.to_owned(), Clone::clone)]
}

fn parse(params: &InpaintParams, text: &str) -> Prompt {
    match params.prompt_syntax {
        PromptSyntax::Weighted => Prompt::weighted(text),
        PromptSyntax::Plain => Prompt::plain(text),
    }
}

impl Pipeline {
    /// One side's chunks, for each text encoder.
    pub(super) fn tokenize(&self, params: &InpaintParams, texts: &Texts) -> Result<Vec<Chunks>> {
        let limit = if params.prompt_limit.is_some() { Limit::OneChunk } else { Limit::None };
        let encoders = self.text_encoders.iter().zip(texts);
        encoders
            .map(|(encoder, text)| {
                Ok(parse(params, text).chunks(&encoder.tokenizer, &encoder.added_words, limit)?)
            })
            .collect()
    }

    /// What a user should know before the run: what is cut off, what is not read as elsewhere, what is never named
    /// and what is not read at all.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn warnings(&self, request: &InpaintRequest) -> Result<Vec<String>> {
        let params = request.params();
        let mut warnings = Vec::new();
        let mut add = |warning: String| {
            // Two encoders mostly read the same text.
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        };
        let mut named = vec![false; self.embedding_names.len()];
        let sides = [
            ("prompt", Some(positive(params))),
            ("negative prompt", params.negative_prompt.is_some().then(|| negative(params))),
        ];
        for (side, texts) in sides.into_iter().filter_map(|(side, texts)| Some((side, texts?))) {
            let chunks = self.tokenize(params, &texts)?;
            for ((encoder, text), chunks) in self.text_encoders.iter().zip(&texts).zip(&chunks) {
                let is_second = Some(text) != texts.first();
                let side = if is_second { format!("second {side}") } else { side.to_owned() };
                let parsed = parse(params, text);
                let mut notes = parsed.notes().iter();
                for note in notes.by_ref().take(MOST_NOTES) {
                    add(format!("the {side} {}", explained(note, text)));
                }
                if notes.len() > 0 {
                    add(format!("of the {side} there are {} more notes of the kind", notes.len()));
                }
                if let Some(cut) = chunks.cut {
                    let rest = text.get(cut.from..).unwrap_or_default().trim();
                    add(format!(
                        "the {side} is {} tokens longer than its limit of {PROMPT_LIMIT}; cut off: {rest:?}",
                        cut.tokens
                    ));
                }
                for (word, named) in encoder.added_words.iter().zip(&mut named) {
                    *named |= chunks.chunks.iter().any(|chunk| chunk.ids.contains(&word.first_id));
                }
            }
        }
        for (name, _) in self.embedding_names.iter().zip(&named).filter(|(_, named)| !**named) {
            add(format!("the embedding {name} does nothing, since no prompt names it"));
        }
        if let Some(warning) = self.unguided(params)? {
            add(warning);
        }
        if !self.merged.words.is_empty() {
            add(format!(
                "a concept carries embeddings of its own, which are not read: {}; a prompt that names them is read as text",
                self.merged.words.join(", ")
            ));
        }
        Ok(warnings)
    }

    /// What was asked for and only classifier-free guidance reads, where there is none.
    fn unguided(&self, params: &InpaintParams) -> Result<Option<String>> {
        let why = match self.guidance(params)? {
            Guidance::ClassifierFree { .. } => return Ok(None),
            Guidance::Off => {
                let scale = params.guidance_scale.unwrap_or_else(|| self.default_guidance_scale());
                format!("at a guidance of {scale}, only above 1")
            }
            Guidance::Embedded { .. } => {
                "with this model, whose UNet reads the guidance as a number".to_owned()
            }
        };
        // A second text counts where a second encoder would read it; an empty one asks for nothing.
        let texts = negative(params);
        let negative = self.text_encoders.iter().zip(&texts).any(|(_, text)| !text.trim().is_empty());
        Ok(match (negative, params.guidance_rescale > 0.0) {
            (true, true) => Some(format!("the negative prompt and the guidance rescale do nothing {why}")),
            (true, false) => Some(format!("the negative prompt does nothing {why}")),
            (false, true) => Some(format!("the guidance rescale does nothing {why}")),
            (false, false) => None,
        })
    }
}

/// The rest of a sentence that begins with the prompt's name.
fn explained(note: &Note, text: &str) -> String {
    let quotation = quoted(text.get(note.place.clone()).unwrap_or_default());
    match note.what {
        Noted::NeverClosed => {
            format!("has a bracket that is never closed and weighs all that follows it: {quotation}")
        }
        Noted::NoNumber => format!("has a weight that is no number and is read as text: {quotation}"),
        Noted::Editing => format!("has {quotation}: words do not change during a run, all of them are read"),
        Noted::And => format!("has {quotation}, which is read as a word: prompts are not joined"),
        Noted::ExtraNetwork => format!("has {quotation}, which is read as text: it loads nothing"),
    }
}

/// The text in quotation marks, its middle left out where it is long.
fn quoted(text: &str) -> String {
    let characters: Vec<char> = text.trim().chars().collect();
    if characters.len() <= QUOTED {
        return format!("{:?}", text.trim());
    }
    let part = |range: &[char]| range.iter().collect::<String>();
    let (head, tail) = (part(&characters[..QUOTED / 2]), part(&characters[characters.len() - QUOTED / 2..]));
    format!("{:?}", format!("{head} ... {tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_quotation_loses_its_middle() {
        assert_eq!(quoted(" a \"cat\" "), r#""a \"cat\"""#);
        let long = quoted(&("a".repeat(100) + &"b".repeat(100)));
        assert_eq!(long, format!("\"{} ... {}\"", "a".repeat(60), "b".repeat(60)));
    }
}
