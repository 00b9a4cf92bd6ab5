//! Words that are vectors of their own: textual inversions, found in a text by their names.

use std::ops::Range;

/// A word that stands for vectors of its own in a text encoder's token table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedWord {
    /// How it is written in a prompt; upper and lower case are the same.
    pub names: Vec<String>,
    /// The token id of its first vector; the others follow.
    pub first_id: u32,
    /// How many vectors it has.
    pub vectors: u32,
}

/// A stretch of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stretch<'a> {
    /// To be tokenized.
    Text(Range<usize>),
    /// An added word, and where its name begins.
    Word(&'a AddedWord, usize),
}

/// Splits `text` at the names of `words`; of two names at one place the longer counts.
pub(super) fn split<'a>(text: &str, words: &'a [AddedWord]) -> Vec<Stretch<'a>> {
    let mut stretches = Vec::new();
    let (mut from, mut at) = (0, 0);
    while let Some(next) = text[at..].chars().next() {
        let names = words.iter().flat_map(|word| word.names.iter().map(move |name| (word, name)));
        let longest = names
            .filter_map(|(word, name)| Some((name_length(text, at, name)?, word)))
            .max_by_key(|(length, _)| *length);
        match longest {
            Some((length, word)) => {
                if from < at {
                    stretches.push(Stretch::Text(from..at));
                }
                stretches.push(Stretch::Word(word, at));
                at += length;
                from = at;
            }
            None => at += next.len_utf8(),
        }
    }
    if from < text.len() {
        stretches.push(Stretch::Text(from..text.len()));
    }
    stretches
}

/// The length of `name` at byte `at` of `text`, if it stands there as a whole word.
///
/// A name that begins or ends with a letter or a digit is not found inside a longer word; white space of any length in
/// the text matches a space of the name.
fn name_length(text: &str, at: usize, name: &str) -> Option<usize> {
    let mut rest = &text[at..];
    for wanted in name.chars() {
        let next = rest.chars().next()?;
        if wanted == ' ' && next.is_whitespace() {
            rest = rest.trim_start();
        } else if next.to_lowercase().eq(wanted.to_lowercase()) {
            rest = &rest[next.len_utf8()..];
        } else {
            return None;
        }
    }
    let joined = |a: Option<char>, b: Option<char>| {
        a.is_some_and(char::is_alphanumeric) && b.is_some_and(char::is_alphanumeric)
    };
    let begins_within = joined(text[..at].chars().next_back(), name.chars().next());
    let ends_within = joined(name.chars().next_back(), rest.chars().next());
    let length = text.len() - at - rest.len();
    (length > 0 && !begins_within && !ends_within).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(names: &[&str], first_id: u32) -> AddedWord {
        AddedWord { names: names.iter().map(|&n| n.into()).collect(), first_id, vectors: 1 }
    }

    /// The text with each word replaced by `#` and its id.
    fn marked(text: &str, words: &[AddedWord]) -> String {
        let mark = |stretch: Stretch<'_>| match stretch {
            Stretch::Text(range) => text[range].to_owned(),
            Stretch::Word(word, _) => format!("#{}", word.first_id),
        };
        split(text, words).into_iter().map(mark).collect()
    }

    #[test]
    fn names_are_found_as_whole_words_in_any_case() {
        let words = [word(&["bad-hands-5", "<bad-hands-5>"], 1), word(&["bad"], 2), word(&["my style"], 3)];
        assert_eq!(marked("BAD-hands-5, bad, badly", &words), "#1, #2, badly");
        assert_eq!(marked("a<bad-hands-5>b bad-hands-55", &words), "a#1b #2-hands-55");
        assert_eq!(marked("My\n  style _bad_ notbad", &words), "#3 _#2_ notbad");
        assert_eq!(marked("", &words), "");
        assert_eq!(marked("ünbad bad", &words), "ünbad #2");
    }
}
