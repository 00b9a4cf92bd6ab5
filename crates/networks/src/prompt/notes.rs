//! What a prompt may mean in other programs and does not mean here: worth a word to its writer.

use std::ops::Range;

/// Something that its writer may have meant otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is.
    pub what: Noted,
    /// Its bytes in the prompt.
    pub place: Range<usize>,
}

/// The kinds of [`Note`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// An opening bracket without its closing one: it weighs everything after it.
    NeverClosed,
    /// `(word:1.2.3)`, `(word:x)`: a weight that is no number, and so text.
    NoNumber,
    /// `[cat:dog:0.5]` or `[cat|dog]`: elsewhere the words change during a run; here they are words like others.
    Editing,
    /// `AND`: elsewhere it joins two prompts; here it is a word.
    And,
    /// `<lora:name:1>`: elsewhere it loads a file; here it is text.
    ExtraNetwork,
}

/// Whether the text inside square brackets is `from:to:when`, `to:when` or `one|other`.
pub(super) fn is_editing(inside: &str) -> bool {
    let when = inside.rsplit_once(':').map(|(_, when)| when.trim());
    inside.contains('|') || when.is_some_and(|when| when.parse::<f64>().is_ok())
}

/// Where the colon is of a text inside round brackets that ends like a weight, in one word, and has no number there.
pub(super) fn weight_without_number(inside: &str) -> Option<usize> {
    let colon = inside.rfind(':')?;
    let weight = inside[colon + 1..].trim();
    let is_word = !weight.contains(|c: char| c.is_whitespace() || "()[]".contains(c));
    is_word.then_some(colon)
}

/// What is neither text nor emphasis elsewhere.
pub(super) fn of_other_languages(text: &str) -> Vec<Note> {
    let and = words(text, "AND").map(|at| Note { what: Noted::And, place: at..at + "AND".len() });
    let networks = text.match_indices('<').filter_map(|(at, _)| {
        let inside = &text[at + 1..];
        let named = ["lora:", "lyco:", "hypernet:"].iter().any(|kind| inside.starts_with(kind));
        let end = if named { inside.find('>')? } else { return None };
        Some(Note { what: Noted::ExtraNetwork, place: at..at + end + 2 })
    });
    and.chain(networks).collect()
}

/// Where `word` stands by itself: no letter, digit or underscore on either side.
pub(super) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| !text[..*at].ends_with(joins) && !text[at + word.len()..].starts_with(joins))
}
