//! A prompt's tokens in chunks of the text encoder's length (stable-diffusion-webui, `modules/sd_hijack_clip.py`).

use super::added::{self, AddedWord, Stretch};
use super::{Part, Prompt};
use crate::Result;
use crate::tokenizer::ClipTokenizer;

/// How far back, in tokens, a full chunk is cut at a comma.
const COMMA_REACH: usize = 20;

/// Where a prompt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Where its last word does: as many chunks as it takes.
    None,
    /// After one chunk, as diffusers cuts it.
    OneChunk,
}

/// A prompt, tokenized.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunks {
    /// At least one.
    pub chunks: Vec<Chunk>,
    /// What did not fit.
    pub cut: Option<Cut>,
}

/// As many tokens as the text encoder reads at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// `model_max_length` ids: begin, text, end, padding.
    pub ids: Vec<u32>,
    /// The weight of each, 1 for begin, end and padding; `None` where all are 1.
    pub weights: Option<Vec<f32>>,
}

/// The end of a prompt that was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// How many tokens.
    pub tokens: usize,
    /// The byte of the prompt at which it begins.
    pub from: usize,
}

#[derive(Debug, Clone, Copy)]
struct Token {
    id: u32,
    weight: f32,
    /// The byte of the prompt.
    at: usize,
}

/// What must stay together in one chunk.
enum Unit {
    Token(Token),
    Word(Vec<Token>),
    Break,
}

impl Prompt {
    /// Tokenizes the prompt and fills chunks with it; `words` are found by their names before the rest is tokenized.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] when a text can't be tokenized.
    pub fn chunks(&self, tokenizer: &ClipTokenizer, words: &[AddedWord], limit: Limit) -> Result<Chunks> {
        let units = self.units(tokenizer, words)?;
        let room = tokenizer.model_max_length() - 2;
        let (filled, cut) = match limit {
            Limit::None => (fill(units, room, tokenizer.comma_token_id()), None),
            Limit::OneChunk => {
                let (chunk, cut) = first(units, room);
                (vec![chunk], cut)
            }
        };
        Ok(Chunks { chunks: filled.iter().map(|tokens| Chunk::new(tokens, tokenizer)).collect(), cut })
    }

    fn units(&self, tokenizer: &ClipTokenizer, words: &[AddedWord]) -> Result<Vec<Unit>> {
        let mut units = Vec::new();
        for part in &self.parts {
            let Part::Run(run) = part else {
                units.push(Unit::Break);
                continue;
            };
            let token = |id, at| Token { id, weight: run.weight as f32, at: run.origin(at) };
            for stretch in added::split(&run.text, words) {
                match stretch {
                    Stretch::Text(range) => {
                        let from = range.start;
                        let ids = tokenizer.pieces(&run.text[range])?;
                        units.extend(ids.into_iter().map(|(id, at)| Unit::Token(token(id, from + at))));
                    }
                    Stretch::Word(word, at) => {
                        let ids = word.first_id..word.first_id + word.vectors;
                        units.push(Unit::Word(ids.map(|id| token(id, at)).collect()));
                    }
                }
            }
        }
        Ok(units)
    }
}

/// As many chunks as it takes, each of at most `room` tokens.
fn fill(units: Vec<Unit>, room: usize, comma: Option<u32>) -> Vec<Vec<Token>> {
    let mut filling = Filling { room, ..Filling::default() };
    for unit in units {
        match unit {
            Unit::Token(token) => {
                if Some(token.id) == comma {
                    filling.last_comma = Some(filling.open.len());
                } else {
                    filling.break_at_comma();
                }
                filling.make_room(1);
                filling.open.push(token);
            }
            Unit::Word(tokens) => {
                filling.break_at_comma();
                filling.make_room(tokens.len());
                filling.open.extend(tokens);
            }
            // Even an empty one: two breaks leave a chunk without words between them.
            Unit::Break => filling.close(),
        }
    }
    if !filling.open.is_empty() || filling.closed.is_empty() {
        filling.close();
    }
    filling.closed
}

#[derive(Default)]
struct Filling {
    room: usize,
    closed: Vec<Vec<Token>>,
    open: Vec<Token>,
    /// The place of the last comma in `open`.
    last_comma: Option<usize>,
}

impl Filling {
    /// Where a full chunk has a comma near its end, what follows the comma moves on to the next chunk.
    fn break_at_comma(&mut self) {
        let full = self.open.len() == self.room;
        let near = |comma: &usize| self.open.len() - comma <= COMMA_REACH;
        if let Some(comma) = self.last_comma.filter(|comma| full && near(comma)) {
            let moved = self.open.split_off(comma + 1);
            self.close();
            self.open = moved;
        }
    }

    fn make_room(&mut self, tokens: usize) {
        if self.open.len() + tokens > self.room {
            self.close();
        }
    }

    fn close(&mut self) {
        self.closed.push(std::mem::take(&mut self.open));
        self.last_comma = None;
    }
}

/// The first `room` tokens up to a break; all others are cut.
fn first(units: Vec<Unit>, room: usize) -> (Vec<Token>, Option<Cut>) {
    let mut kept = Vec::new();
    let mut cut: Option<Cut> = None;
    let mut ended = false;
    for unit in units {
        let tokens = match unit {
            Unit::Token(token) => vec![token],
            Unit::Word(tokens) => tokens,
            Unit::Break => {
                ended = true;
                continue;
            }
        };
        for token in tokens {
            match &mut cut {
                Some(cut) => cut.tokens += 1,
                None if ended || kept.len() == room => cut = Some(Cut { tokens: 1, from: token.at }),
                None => kept.push(token),
            }
        }
    }
    (kept, cut)
}

impl Chunk {
    /// The chunk of an empty prompt.
    pub fn empty(tokenizer: &ClipTokenizer) -> Self {
        Self::new(&[], tokenizer)
    }

    fn new(tokens: &[Token], tokenizer: &ClipTokenizer) -> Self {
        let length = tokenizer.model_max_length();
        let mut ids = vec![tokenizer.bos_token_id()];
        ids.extend(tokens.iter().map(|token| token.id));
        ids.push(tokenizer.eos_token_id());
        ids.resize(length, tokenizer.pad_token_id());
        let weighted = tokens.iter().any(|token| token.weight != 1.0);
        let weights = weighted.then(|| {
            let mut weights = vec![1.0];
            weights.extend(tokens.iter().map(|token| token.weight));
            weights.resize(length, 1.0);
            weights
        });
        Self { ids, weights }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const COMMA: u32 = 9;

    fn token(id: u32) -> Unit {
        Unit::Token(Token { id, weight: 1.0, at: id as usize })
    }

    fn lengths(units: Vec<Unit>) -> Vec<usize> {
        fill(units, 75, Some(COMMA)).iter().map(Vec::len).collect()
    }

    /// `count` words.
    fn words(count: usize) -> impl Iterator<Item = Unit> {
        (0..count).map(|_| token(1))
    }

    #[test]
    fn chunks_are_filled_one_after_another() {
        assert_eq!(lengths(vec![]), [0]);
        assert_eq!(lengths(words(75).collect()), [75]);
        assert_eq!(lengths(words(76).collect()), [75, 1]);
        assert_eq!(lengths(words(151).collect()), [75, 75, 1]);
    }

    #[test]
    fn a_full_chunk_is_cut_at_a_near_comma() {
        let with_comma = |before, after| words(before).chain([token(COMMA)]).chain(words(after)).collect();
        assert_eq!(lengths(with_comma(70, 10)), [71, 10]);
        assert_eq!(lengths(with_comma(55, 30)), [56, 30]);
        // 21 tokens back is too far.
        assert_eq!(lengths(with_comma(54, 30)), [75, 10]);
        // A chunk that is full by a comma, and one that a comma would begin.
        assert_eq!(lengths(with_comma(74, 5)), [75, 5]);
        assert_eq!(lengths(with_comma(75, 5)), [75, 6]);
        // Nothing is cut where everything fits.
        assert_eq!(lengths(with_comma(70, 4)), [75]);
    }

    #[test]
    fn a_break_ends_a_chunk() {
        let broken = |parts: &[usize]| {
            let mut units = Vec::new();
            for (i, &count) in parts.iter().enumerate() {
                units.extend((i > 0).then_some(Unit::Break));
                units.extend(words(count));
            }
            units
        };
        assert_eq!(lengths(broken(&[3, 4])), [3, 4]);
        assert_eq!(lengths(broken(&[0, 4])), [0, 4]);
        assert_eq!(lengths(broken(&[3, 0])), [3]);
        assert_eq!(lengths(broken(&[3, 0, 4])), [3, 0, 4]);
        assert_eq!(lengths(broken(&[80, 4])), [75, 5, 4]);
        let (kept, cut) = first(broken(&[3, 4]), 75);
        assert_eq!((kept.len(), cut.unwrap().tokens), (3, 4));
        assert_eq!(first(broken(&[3, 0]), 75).1, None);
    }

    #[test]
    fn the_vectors_of_a_word_stay_together() {
        let word =
            |count: u32| Unit::Word((0..count).map(|i| Token { id: 100 + i, weight: 1.0, at: 0 }).collect());
        assert_eq!(lengths(words(70).chain([word(5)]).collect()), [75]);
        assert_eq!(lengths(words(70).chain([word(6)]).collect()), [70, 6]);
        assert_eq!(lengths(words(75).chain([word(75)]).chain(words(1)).collect()), [75, 75, 1]);
        // As diffusers cuts: within a word.
        assert_eq!(first(words(70).chain([word(6)]).collect(), 75).1.unwrap().tokens, 1);
    }
}
