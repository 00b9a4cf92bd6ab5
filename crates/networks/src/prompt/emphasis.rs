//! AUTOMATIC1111's emphasis, parsed (`modules/prompt_parser.py`, `parse_prompt_attention`).

use std::ops::Range;

use super::notes::{self, Noted};
use super::{Note, Part, Prompt, Run};

/// The factor of `(word)`; `[word]` has its inverse.
const FACTOR: f64 = 1.1;

/// Characters that mean something; all others are text.
const SPECIAL: [char; 6] = ['\\', '(', ')', '[', ']', ':'];

/// A piece before runs of equal weight are joined.
enum Piece<'a> {
    Text { text: &'a str, at: usize, weight: f64 },
    Break,
}

#[derive(Default)]
struct Parser<'a> {
    pieces: Vec<Piece<'a>>,
    /// Open brackets of each kind: the first piece inside, the byte of the bracket. Each kind closes by itself, so
    /// that ranges may overlap.
    round: Vec<(usize, usize)>,
    square: Vec<(usize, usize)>,
    notes: Vec<Note>,
}

/// Parses `text`. Total: a bracket that is never closed counts to the end, a closing one alone is text.
pub(super) fn parse(text: &str) -> Prompt {
    let mut parser = Parser::default();
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        at += parser.take(text, at, next);
    }
    parser.finish(text)
}

impl<'a> Parser<'a> {
    /// Reads what begins with `next` at byte `at`; gives how many bytes that was.
    fn take(&mut self, text: &'a str, at: usize, next: char) -> usize {
        let rest = &text[at..];
        match next {
            '\\' => match rest[1..].chars().next() {
                Some(c) if c != ':' && SPECIAL.contains(&c) => {
                    self.text(&rest[1..2], at);
                    2
                }
                // Alone it vanishes, but what stands on either side of it is not joined where their weights differ.
                _ => {
                    self.text("", at);
                    1
                }
            },
            '(' => {
                self.round.push((self.pieces.len(), at));
                1
            }
            '[' => {
                self.square.push((self.pieces.len(), at));
                1
            }
            ')' => {
                match self.round.pop() {
                    Some((first, open)) => {
                        self.weigh(first, FACTOR);
                        if let Some(colon) = notes::weight_without_number(&text[open + 1..at]) {
                            self.note(Noted::NoNumber, open + 1 + colon..at + 1);
                        }
                    }
                    None => self.text(&rest[..1], at),
                }
                1
            }
            ']' => {
                match self.square.pop() {
                    Some((first, open)) => {
                        self.weigh(first, 1.0 / FACTOR);
                        if notes::is_editing(&text[open + 1..at]) {
                            self.note(Noted::Editing, open..at + 1);
                        }
                    }
                    None => self.text(&rest[..1], at),
                }
                1
            }
            ':' => self.colon(rest, at),
            _ => {
                let length = rest.find(SPECIAL).unwrap_or(rest.len());
                self.words(&rest[..length], at);
                length
            }
        }
    }

    /// A colon: the weight that closes a round bracket, or text.
    fn colon(&mut self, rest: &'a str, at: usize) -> usize {
        let Some((number, length)) = closing_weight(rest) else {
            self.text(&rest[..1], at);
            return 1;
        };
        let Some(&(first, _)) = self.round.last() else {
            self.text(&rest[..length], at);
            return length;
        };
        match number.parse::<f64>() {
            Ok(weight) => {
                self.round.pop();
                self.weigh(first, weight);
                length
            }
            // `(oh:...)`, which is noted where the bracket closes.
            Err(_) => {
                self.text(&rest[..1], at);
                1
            }
        }
    }

    /// Text without special characters, split where it says BREAK.
    fn words(&mut self, text: &'a str, at: usize) {
        let mut from = 0;
        for found in breaks(text) {
            self.text(&text[from..found.start], at + from);
            self.pieces.push(Piece::Break);
            from = found.end;
        }
        self.text(&text[from..], at + from);
    }

    fn text(&mut self, text: &'a str, at: usize) {
        self.pieces.push(Piece::Text { text, at, weight: 1.0 });
    }

    /// Multiplies the weights of all pieces from `first` on.
    fn weigh(&mut self, first: usize, factor: f64) {
        for piece in &mut self.pieces[first..] {
            if let Piece::Text { weight, .. } = piece {
                *weight *= factor;
            }
        }
    }

    fn note(&mut self, what: Noted, place: Range<usize>) {
        self.notes.push(Note { what, place });
    }

    fn finish(mut self, text: &str) -> Prompt {
        for (brackets, factor) in
            [(std::mem::take(&mut self.round), FACTOR), (std::mem::take(&mut self.square), 1.0 / FACTOR)]
        {
            for (first, open) in brackets {
                self.weigh(first, factor);
                self.note(Noted::NeverClosed, open..text.len());
            }
        }
        let mut parts: Vec<Part> = Vec::new();
        for piece in self.pieces {
            match (piece, parts.last_mut()) {
                (Piece::Break, _) => parts.push(Part::Break),
                (Piece::Text { text, at, weight }, Some(Part::Run(run))) if run.weight == weight => {
                    run.origins.push((run.text.len(), at));
                    run.text.push_str(text);
                }
                (Piece::Text { text, at, weight }, _) => {
                    parts.push(Part::Run(Run { text: text.to_owned(), weight, origins: vec![(0, at)] }));
                }
            }
        }
        parts.retain(|part| !matches!(part, Part::Run(run) if run.text.is_empty()));
        self.notes.extend(notes::of_other_languages(text));
        self.notes.sort_by_key(|note| note.place.start);
        Prompt { parts, notes: self.notes }
    }
}

/// `:1.3)` at the start of `rest`, spaces allowed around the number: the number, and the length of all of it.
fn closing_weight(rest: &str) -> Option<(&str, usize)> {
    let inside = rest.strip_prefix(':')?.trim_start();
    let unsigned = inside.strip_prefix(['+', '-']).unwrap_or(inside);
    let behind = unsigned.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let number = &inside[..inside.len() - behind.len()];
    let closed = behind.trim_start().strip_prefix(')')?;
    (behind.len() < unsigned.len()).then_some((number, rest.len() - closed.len()))
}

/// Every `BREAK` that is a word by itself, with the white space around it.
fn breaks(text: &str) -> Vec<Range<usize>> {
    let words = notes::words(text, "BREAK");
    let mut found: Vec<Range<usize>> = Vec::new();
    for at in words {
        let from = found.last().map_or(0, |last| last.end);
        let start = from + text[from..at].trim_end().len();
        let behind = &text[at + "BREAK".len()..];
        found.push(start..text.len() - behind.trim_start().len());
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Runs as (text, weight), a break as ("BREAK", 0).
    fn parsed(text: &str) -> Vec<(String, f64)> {
        let part = |part: &Part| match part {
            Part::Run(run) => (run.text.clone(), run.weight),
            Part::Break => ("BREAK".to_owned(), 0.0),
        };
        parse(text).parts().iter().map(part).collect()
    }

    fn check(text: &str, expected: &[(&str, f64)]) {
        let expected: Vec<_> = expected.iter().map(|&(text, weight)| (text.to_owned(), weight)).collect();
        assert_eq!(parsed(text), expected, "{text}");
    }

    #[test]
    fn brackets_are_weights() {
        check("normal text", &[("normal text", 1.0)]);
        check("an (important) word", &[("an ", 1.0), ("important", 1.1), (" word", 1.0)]);
        check("((ugly face))", &[("ugly face", 1.1 * 1.1)]);
        check("[dull]", &[("dull", 1.0 / 1.1)]);
        check("(red:1.3) hat", &[("red", 1.3), (" hat", 1.0)]);
        check("(a : 1.5 )", &[("a ", 1.5)]);
        check("(a:-.5)(b:+2.)", &[("a", -0.5), ("b", 2.0)]);
        check("(unnecessary)(parens)", &[("unnecessaryparens", 1.1)]);
        check(
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            &[
                ("a ", 1.0),
                ("house", 1.3 * 1.1 * 1.1),
                (" ", 1.1),
                ("on", 1.0 / 1.1 * 1.1),
                (" a ", 1.1),
                ("hill", 0.5 * 1.1),
                (", sun, ", 1.1),
                ("sky", 1.1 * 1.1 * 1.1 * 1.1),
                (".", 1.1),
            ],
        );
    }

    #[test]
    fn escapes_are_characters() {
        check(r"\(literal\]", &[("(literal]", 1.0)]);
        check(r"\\ and \[ (\)) \x", &[(r"\ and [ ", 1.0), (")", 1.1), (" x", 1.0)]);
        check(r"ends with \", &[("ends with ", 1.0)]);
        check(r"x(\:1.3)y", &[("x", 1.0), ("y", 1.0)]);
    }

    #[test]
    fn what_is_not_balanced_is_read_as_far_as_it_goes() {
        check("(unbalanced", &[("unbalanced", 1.1)]);
        check("a [b", &[("a ", 1.0), ("b", 1.0 / 1.1)]);
        check("a) b] c:1.3)", &[("a) b] c:1.3)", 1.0)]);
        check("(a:b)", &[("a:b", 1.1)]);
        check("(oh:...)", &[("oh:...", 1.1)]);
        check("[a:1.3)", &[("a:1.3)", 1.0 / 1.1)]);
        // Each kind closes by itself.
        check("(a [b) c]", &[("a ", 1.1), ("b", 1.1 * (1.0 / 1.1)), (" c", 1.0 / 1.1)]);
        check("", &[]);
        check("()[]", &[]);
    }

    #[test]
    fn a_break_is_a_word_by_itself() {
        check("a BREAK b", &[("a", 1.0), ("BREAK", 0.0), ("b", 1.0)]);
        check("BREAKFAST _BREAK break", &[("BREAKFAST _BREAK break", 1.0)]);
        check("a\nBREAK  BREAK,b", &[("a", 1.0), ("BREAK", 0.0), ("BREAK", 0.0), (",b", 1.0)]);
        check("(a BREAK b:1.3)", &[("a", 1.3), ("BREAK", 0.0), ("b", 1.3)]);
        check(":BREAK", &[(":", 1.0), ("BREAK", 0.0)]);
    }

    #[test]
    fn what_may_have_been_meant_otherwise_is_noted() {
        let notes = |text: &str| -> Vec<(Noted, String)> {
            let quoted = |note: &Note| (note.what, text[note.place.clone()].to_owned());
            parse(text).notes().iter().map(quoted).collect()
        };
        assert_eq!(notes("((ugly face)), [dull], (red:1.3) BREAK x"), []);
        assert_eq!(notes("a [cat:dog:0.5]"), [(Noted::Editing, "[cat:dog:0.5]".into())]);
        assert_eq!(notes("a [cat|dog]"), [(Noted::Editing, "[cat|dog]".into())]);
        assert_eq!(notes("a :( b"), [(Noted::NeverClosed, "( b".into())]);
        assert_eq!(notes("(a:1.2.3) b"), [(Noted::NoNumber, ":1.2.3)".into())]);
        assert_eq!(notes("((oh:x)) b"), [(Noted::NoNumber, ":x)".into())]);
        assert_eq!(
            notes("(oh: 1,3)(a:)"),
            [(Noted::NoNumber, ": 1,3)".into()), (Noted::NoNumber, ":)".into())]
        );
        assert_eq!(notes("(style: dark red) (a (b:1.2)) (see: (c))"), []);
        assert_eq!(notes("cat AND dog"), [(Noted::And, "AND".into())]);
        assert_eq!(notes("x <lora:a:1> y"), [(Noted::ExtraNetwork, "<lora:a:1>".into())]);
    }

    /// Text in which brackets, numbers and breaks are common.
    fn any_prompt() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[()\\[\\]:\\\\]{1,4}",
            "[ -~]{0,6}",
            "(BREAK|AND| BREAK |:1\\.3\\)|:[.0-9]{0,3}\\)|<lora:)",
            any::<String>()
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn every_text_is_a_prompt(text in any_prompt()) {
            let prompt = parse(&text);
            let mut last = 0;
            for part in prompt.parts() {
                let Part::Run(run) = part else { continue };
                for (at, character) in run.text.char_indices() {
                    let origin = run.origin(at);
                    // Every character stands in the prompt, in its order, but for the backslash before it.
                    prop_assert!(origin >= last && text[origin..].trim_start_matches('\\').starts_with(character)
                        || text[origin..].starts_with(character));
                    last = origin;
                }
            }
            for note in prompt.notes() {
                prop_assert!(text.get(note.place.clone()).is_some());
            }
        }

        #[test]
        fn text_without_brackets_is_plain(text in "[^\\\\()\\[\\]]*") {
            prop_assume!(!text.contains("BREAK"));
            let parts = |prompt: Prompt| -> Vec<(String, f64)> {
                prompt.parts().iter().filter_map(|part| match part {
                    Part::Run(run) => Some((run.text.clone(), run.weight)),
                    Part::Break => None,
                }).filter(|(text, _)| !text.is_empty()).collect()
            };
            prop_assert_eq!(parts(parse(&text)), parts(Prompt::plain(&text)));
        }

        #[test]
        fn escaped_text_is_itself(text in any_prompt()) {
            prop_assume!(!text.contains("BREAK"));
            let escaped: String = text.chars().flat_map(|c| {
                let escape = c != ':' && SPECIAL.contains(&c);
                escape.then_some('\\').into_iter().chain([c])
            }).collect();
            let parts = parsed(&escaped);
            let whole = if text.is_empty() { vec![] } else { vec![(text, 1.0)] };
            prop_assert_eq!(parts, whole);
        }
    }
}
