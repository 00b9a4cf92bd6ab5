//! CLIP's tokenizer: byte-level byte pair encoding of lowercased text, as transformers 5's `CLIPTokenizer` does it.
//!
//! The vocabulary and the merges come from `tokenizer.json`, or from `vocab.json` and `merges.txt`. Everything else of
//! the pipeline is fixed by transformers (`models/clip/tokenization_clip.py`), whatever `tokenizer.json` says; which
//! tokens are special, which one pads and how long a text may be comes from `tokenizer_config.json` and
//! `special_tokens_map.json`. Special tokens are found in a text before it is split: SDXL's second tokenizer pads with
//! `!`, and so every `!` of a prompt is its token 0 there and not the token of an exclamation mark.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, NormalizerWrapper, SplitDelimiterBehavior, Tokenizer};

use crate::{Error, Result, bounds};

/// The largest file of a tokenizer that is read; CLIP's `tokenizer.json` has 3.6 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The longest text that a tokenizer may promise, in tokens; CLIP's is 77.
const MAX_LENGTH: usize = 4096;

/// How transformers cuts a text into words: its special tokens, English endings, letters, single digits, the rest.
const WORDS: &str = concat!(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|",
    r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
);

/// Text to token ids.
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    bos: u32,
    eos: u32,
    pad: u32,
    model_max_length: usize,
}

impl ClipTokenizer {
    /// Opens a tokenizer folder.
    ///
    /// # Errors
    /// [`Error::File`] when a file is missing or damaged; [`Error::Tokenizer`] when the files do not agree.
    pub fn open(dir: &Path) -> Result<Self> {
        let (vocab, merges, mut added) = read_vocabulary(dir)?;
        let settings = Settings::read(dir, &mut added)?;
        let wrong = |e: tokenizers::Error| Error::Tokenizer(format!("{}: {e}", dir.display()));
        let model = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .unk_token(settings.unk.content.clone())
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix("</w>".into())
            .build()
            .map_err(wrong)?;
        let mut tokenizer = Tokenizer::new(model);
        let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").map_err(wrong)?;
        let normalizers: [NormalizerWrapper; 3] = [NFC.into(), spaces.into(), Lowercase.into()];
        tokenizer.with_normalizer(Some(Normalizers::new(normalizers.into()))).map_err(wrong)?;
        let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)
            .map_err(wrong)?;
        let pre_tokenizers: [PreTokenizerWrapper; 2] =
            [words.into(), ByteLevel::new(false, true, true).into()];
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(pre_tokenizers.into())));
        for (&declared, token) in &added {
            add(&mut tokenizer, token, Some(declared))?;
        }
        for token in settings.special_tokens() {
            add(&mut tokenizer, token, None)?;
        }
        let id = |token: &AddedToken| {
            let missing = || Error::Tokenizer(format!("{}: no token {}", dir.display(), token.content));
            tokenizer.token_to_id(&token.content).ok_or_else(missing)
        };
        let (bos, eos, pad) = (id(&settings.bos)?, id(&settings.eos)?, id(&settings.pad)?);
        let ends = RobertaProcessing::new((settings.eos.content, eos), (settings.bos.content, bos))
            .trim_offsets(false)
            .add_prefix_space(false);
        tokenizer.with_post_processor(Some(ends));
        Ok(Self { tokenizer, bos, eos, pad, model_max_length: settings.model_max_length })
    }

    /// All ids of `text` between begin and end, however many they are.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the text can't be tokenized.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encoding(text, true)?.get_ids().to_vec())
    }

    /// The ids of `text` by itself, without begin and end, each with the byte of `text` at which it begins.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the text can't be tokenized.
    pub fn pieces(&self, text: &str) -> Result<Vec<(u32, usize)>> {
        let encoding = self.encoding(text, false)?;
        let starts = encoding.get_offsets().iter().map(|&(start, _)| start);
        Ok(encoding.get_ids().iter().copied().zip(starts).collect())
    }

    /// The token that begins a text.
    pub fn bos_token_id(&self) -> u32 {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos_token_id(&self) -> u32 {
        self.eos
    }

    /// The token that fills a text up.
    pub fn pad_token_id(&self) -> u32 {
        self.pad
    }

    /// The number of tokens that a text is padded or cut to, begin and end among them.
    pub fn model_max_length(&self) -> usize {
        self.model_max_length
    }

    /// The token of a comma, if the vocabulary has one.
    pub fn comma_token_id(&self) -> Option<u32> {
        self.tokenizer.token_to_id(",</w>")
    }

    fn encoding(&self, text: &str, with_ends: bool) -> Result<tokenizers::Encoding> {
        self.tokenizer
            .encode(text, with_ends)
            .map_err(|e| Error::Tokenizer(format!("a text was not taken: {e}")))
    }
}

/// Makes `token` one that is found before a text is split; it must get its `declared` id, if it has one.
fn add(tokenizer: &mut Tokenizer, token: &AddedToken, declared: Option<u32>) -> Result<()> {
    tokenizer
        .add_special_tokens([token.clone()])
        .map_err(|e| Error::Tokenizer(format!("token {}: {e}", token.content)))?;
    let id = tokenizer.token_to_id(&token.content);
    match declared {
        Some(declared) if id != Some(declared) => Err(Error::Tokenizer(format!(
            "token {} is declared as {declared} and would be {}",
            token.content,
            id.map_or("absent".into(), |id| id.to_string())
        ))),
        _ => Ok(()),
    }
}

/// What `tokenizer_config.json` and `special_tokens_map.json` say.
struct Settings {
    bos: AddedToken,
    eos: AddedToken,
    unk: AddedToken,
    pad: AddedToken,
    extra: Vec<AddedToken>,
    model_max_length: usize,
}

/// The special tokens that have a part to play, with transformers' defaults: begin, end, unknown, padding.
const NAMED: [(&str, &str); 4] = [
    ("bos_token", "<|startoftext|>"),
    ("eos_token", "<|endoftext|>"),
    ("unk_token", "<|endoftext|>"),
    ("pad_token", "<|endoftext|>"),
];

/// A special token as it is written: its text alone, or with how it is matched.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Token {
        content: String,
        #[serde(default)]
        single_word: bool,
        #[serde(default)]
        lstrip: bool,
        #[serde(default)]
        rstrip: bool,
        normalized: Option<bool>,
    },
}

impl From<Written> for AddedToken {
    fn from(written: Written) -> Self {
        match written {
            Written::Text(content) => Self::from(content, true),
            Written::Token { content, single_word, lstrip, rstrip, normalized } => Self {
                content,
                single_word,
                lstrip,
                rstrip,
                normalized: normalized.unwrap_or(false),
                special: true,
            },
        }
    }
}

impl Settings {
    /// Reads both files; `added` are the added tokens of `tokenizer.json`.
    ///
    /// Precedence as in transformers' `_from_pretrained`: an `added_tokens_decoder` in `tokenizer_config.json` stands
    /// for all other lists. Without one, `special_tokens_map.json` wins over `tokenizer_config.json`, and the tokens of
    /// `tokenizer.json` over those of `added_tokens.json`.
    fn read(dir: &Path, added: &mut BTreeMap<u32, AddedToken>) -> Result<Self> {
        let config_path = dir.join("tokenizer_config.json");
        let wrong = |reason: String| Error::File { path: config_path.clone(), reason };
        let mut config = read_object(&config_path)?;
        if let Some(decoder) = config.remove("added_tokens_decoder") {
            let decoder: BTreeMap<u32, Written> = serde_json::from_value(decoder)
                .map_err(|e| wrong(format!("has an added_tokens_decoder that can't be read: {e}")))?;
            *added = decoder.into_iter().map(|(id, token)| (id, token.into())).collect();
        } else {
            let map = dir.join("special_tokens_map.json");
            if map.is_file() {
                config.extend(read_object(&map)?);
            }
            let path = dir.join("added_tokens.json");
            if path.is_file() {
                let special: Vec<&str> =
                    NAMED.iter().filter_map(|(key, default)| content(config.get(*key), default)).collect();
                for (token, id) in read_object(&path)? {
                    let is_special = special.contains(&token.as_str());
                    let id = token_id(&token, &id, &path)?;
                    added.entry(id).or_insert_with(|| AddedToken::from(token, is_special));
                }
            }
        }
        // A token that was added keeps the manner in which it was added.
        let as_added = |token: AddedToken| -> AddedToken {
            added.values().find(|known| known.content == token.content).cloned().unwrap_or(token)
        };
        let token = |(key, default): (&str, &str)| match config.get(key) {
            None | Some(Value::Null) => Ok(as_added(AddedToken::from(default, true))),
            Some(value) => serde_json::from_value::<Written>(value.clone())
                .map(|written| as_added(written.into()))
                .map_err(|_| {
                    wrong(format!("gives {key} as {value}; needed: a text, or an object with content"))
                }),
        };
        let [bos, eos, unk, pad] = NAMED.map(token);
        let mut extra = Vec::new();
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            let Some(value) = config.get(key).filter(|value| !value.is_null()) else { continue };
            let tokens: Vec<Written> = serde_json::from_value(value.clone())
                .map_err(|_| wrong(format!("gives {key} as {value}; needed: a list of tokens")))?;
            extra.extend(tokens.into_iter().map(|written| as_added(written.into())));
        }
        let length = config.get("model_max_length").unwrap_or(&Value::Null);
        let model_max_length = length
            .as_u64()
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| (3..=MAX_LENGTH).contains(length))
            .ok_or_else(|| {
                wrong(format!("gives model_max_length as {length}; allowed: 3 to {MAX_LENGTH}"))
            })?;
        Ok(Self { bos: bos?, eos: eos?, unk: unk?, pad: pad?, extra, model_max_length })
    }

    /// In the order in which transformers adds them; the last manner given for a text is the one that counts.
    fn special_tokens(&self) -> impl Iterator<Item = &AddedToken> {
        [&self.bos, &self.eos, &self.unk, &self.pad].into_iter().chain(&self.extra)
    }
}

/// The text of a special token in either way of writing.
fn content<'a>(written: Option<&'a Value>, default: &'a str) -> Option<&'a str> {
    match written {
        None | Some(Value::Null) => Some(default),
        Some(Value::String(content)) => Some(content),
        Some(other) => other.get("content")?.as_str(),
    }
}

/// The vocabulary, the merges and the added tokens of a folder.
fn read_vocabulary(dir: &Path) -> Result<(Vocab, Merges, BTreeMap<u32, AddedToken>)> {
    let whole = dir.join("tokenizer.json");
    if whole.is_file() {
        return read_tokenizer_json(&whole);
    }
    let vocab = read_object(&dir.join("vocab.json"))?;
    let vocab = parse_vocab(vocab, &dir.join("vocab.json"))?;
    let path = dir.join("merges.txt");
    let merges = String::from_utf8(read_bytes(&path)?)
        .map_err(|_| Error::File { path: path.clone(), reason: "is not UTF-8".into() })?;
    let lines = merges.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty());
    let merges = lines.map(|line| split_merge(line, &path)).collect::<Result<Merges>>()?;
    Ok((vocab, merges, BTreeMap::new()))
}

fn read_tokenizer_json(path: &Path) -> Result<(Vocab, Merges, BTreeMap<u32, AddedToken>)> {
    let wrong = |reason: &str| Error::File { path: path.to_owned(), reason: reason.into() };
    let mut json = read_object(path)?;
    let Some(Value::Object(mut model)) = json.remove("model") else {
        return Err(wrong("has no object model"));
    };
    let Some(Value::Object(vocab)) = model.remove("vocab") else {
        return Err(wrong("has no object model.vocab"));
    };
    let Some(Value::Array(merges)) = model.remove("merges") else {
        return Err(wrong("has no list model.merges"));
    };
    let merge = |merge: &Value| match merge {
        Value::String(line) => split_merge(line, path),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(a), Value::String(b)] => Ok((a.clone(), b.clone())),
            _ => Err(wrong("has a merge that is not a pair")),
        },
        _ => Err(wrong("has a merge that is not a pair")),
    };
    #[derive(Deserialize)]
    struct Numbered {
        id: u32,
        #[serde(flatten)]
        token: Written,
    }
    let added = json.remove("added_tokens").unwrap_or_else(|| Value::Array(Vec::new()));
    let added: Vec<Numbered> = serde_json::from_value(added)
        .map_err(|e| wrong(&format!("has added_tokens that can't be read: {e}")))?;
    Ok((
        parse_vocab(vocab, path)?,
        merges.iter().map(merge).collect::<Result<_>>()?,
        added.into_iter().map(|numbered| (numbered.id, numbered.token.into())).collect(),
    ))
}

fn parse_vocab(vocab: Map<String, Value>, path: &Path) -> Result<Vocab> {
    vocab
        .into_iter()
        .map(|(token, id)| {
            let id = token_id(&token, &id, path)?;
            Ok((token, id))
        })
        .collect()
}

fn token_id(token: &str, id: &Value, path: &Path) -> Result<u32> {
    let most = *bounds::TOKENS.end() - 1;
    let known = id.as_u64().filter(|id| *id <= most as u64);
    known.and_then(|id| u32::try_from(id).ok()).ok_or_else(|| Error::File {
        path: path.to_owned(),
        reason: format!("gives token {token:?} the id {id}; needed: a whole number from 0 to {most}"),
    })
}

fn split_merge(line: &str, path: &Path) -> Result<(String, String)> {
    let parts: Vec<&str> = line.split_whitespace().collect();
    match parts.as_slice() {
        [a, b] => Ok(((*a).to_owned(), (*b).to_owned())),
        _ => Err(Error::File {
            path: path.to_owned(),
            reason: format!("has the merge {line:?}; needed: two tokens and a space between them"),
        }),
    }
}

fn read_object(path: &Path) -> Result<Map<String, Value>> {
    serde_json::from_slice(&read_bytes(path)?)
        .map_err(|e| Error::File { path: path.to_owned(), reason: format!("is not a JSON object: {e}") })
}

fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let wrong = |reason: String| Error::File { path: PathBuf::from(path), reason };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| wrong(format!("can't be read: {e}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(wrong(format!("is larger than {MAX_FILE_BYTES} bytes; such a file is not read")));
    }
    Ok(bytes)
}
