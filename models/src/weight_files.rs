//! Which files hold a component's weights, as diffusers and transformers write them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::json::{self, MAX_INDEX_BYTES};
use crate::{Error, Result};

/// Which of a checkpoint's weight files are preferred where it has several. The other kind is taken where a component
/// has only that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Variant {
    /// The files without a variant in their names: the numbers as they were trained or published.
    #[default]
    Default,
    /// The files with `fp16` in their names: half the bytes.
    Fp16,
}

/// The library that wrote a component: it decides on the file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    Diffusers,
    Transformers,
}

/// One way in which weights may be stored in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// All of them in the file of this name.
    Single(String),
    /// In the files that the list of this name names.
    Sharded(String),
}

impl Library {
    /// What the names of the weight files begin with.
    fn stem(self) -> &'static str {
        match self {
            Self::Diffusers => "diffusion_pytorch_model",
            Self::Transformers => "model",
        }
    }

    /// The layouts in the order in which they are looked for.
    ///
    /// Each library has its own order of a single file and shards, and two ways to put the variant into the name of
    /// the list: the present one (diffusers `_add_variant`) and an older one (diffusers `_fetch_index_file_legacy`).
    fn layouts(self, preferred: Variant) -> Vec<Layout> {
        let stem = self.stem();
        let single = |name: String| Layout::Single(format!("{stem}{name}"));
        let sharded = |name: &str| Layout::Sharded(format!("{stem}{name}"));
        let default = [single(".safetensors".into()), sharded(".safetensors.index.json")];
        let half = [
            single(".fp16.safetensors".into()),
            sharded(".safetensors.index.fp16.json"),
            sharded(".fp16.safetensors.index.json"),
        ];
        let (mut first, mut second) = match preferred {
            Variant::Default => (default.to_vec(), half.to_vec()),
            Variant::Fp16 => (half.to_vec(), default.to_vec()),
        };
        if self == Self::Diffusers {
            first.rotate_left(1);
            second.rotate_left(1);
        }
        first.append(&mut second);
        first
    }

    /// The first layout that is there.
    pub(crate) fn choose(self, preferred: Variant, exists: impl Fn(&str) -> bool) -> Option<Layout> {
        self.layouts(preferred).into_iter().find(|layout| match layout {
            Layout::Single(name) | Layout::Sharded(name) => exists(name),
        })
    }
}

/// The weight files in the folder `dir` of one component, sorted by name.
///
/// # Errors
/// [`Error::File`] when there are none in safetensors, or when the list of shards is damaged or names a missing file.
pub(crate) fn find(dir: &Path, library: Library, preferred: Variant) -> Result<Vec<PathBuf>> {
    match library.choose(preferred, |name| dir.join(name).is_file()) {
        Some(Layout::Single(name)) => Ok(vec![dir.join(name)]),
        Some(Layout::Sharded(name)) => shards(&dir.join(name)),
        None => Err(Error::file(dir, absent(dir, library))),
    }
}

fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    let bytes = json::read_bytes(index, MAX_INDEX_BYTES)?;
    let names = parse_shard_index(&bytes).map_err(|reason| Error::file(index, reason))?;
    let files: Vec<PathBuf> = names.iter().map(|name| index.with_file_name(name)).collect();
    match files.iter().find(|file| !file.is_file()) {
        Some(file) => Err(Error::file(file, format!("is missing; {} names it", index.display()))),
        None => Ok(files),
    }
}

/// Parses a list of shards (`*.safetensors.index.json`) to the names of its files, each once, sorted.
///
/// Total over all inputs. Only plain file names that end in `.safetensors` are let through, so that no list leads out
/// of its folder.
///
/// # Errors
/// What is wrong with the list, in words.
pub fn parse_shard_index(bytes: &[u8]) -> std::result::Result<BTreeSet<String>, String> {
    let index = json::parse_object(bytes)?;
    let Some(serde_json::Value::Object(map)) = index.get("weight_map") else {
        return Err("has no object weight_map".to_owned());
    };
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let name =
            file.as_str().ok_or_else(|| format!("weight_map gives {tensor} the file {file}, not a name"))?;
        let plain = name.ends_with(".safetensors")
            && !name.starts_with('.')
            && !name.contains(['/', '\\', ':'])
            && !name.contains(char::is_control);
        if !plain {
            return Err(format!(
                "weight_map gives {tensor} the file {name:?}; allowed: names of .safetensors files in the same folder"
            ));
        }
        names.insert(name.to_owned());
    }
    if names.is_empty() {
        return Err("has an empty weight_map".to_owned());
    }
    Ok(names)
}

/// Why no layout was found: weights in pickles, or none at all.
fn absent(dir: &Path, library: Library) -> String {
    let stem = library.stem();
    let pickled = std::fs::read_dir(dir).is_ok_and(|entries| {
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .any(|name| name.ends_with(".bin") || name.ends_with(".ckpt"))
    });
    if pickled {
        "has its weights only as .bin, a format that can run code when opened and is not read; convert them: load \
         the model with diffusers and write it with save_pretrained(folder, safe_serialization=True)"
            .to_owned()
    } else {
        format!(
            "has no weights; needed: {stem}.safetensors, {stem}.fp16.safetensors, or shards with their index"
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn found(library: Library, preferred: Variant, there: &[&str]) -> Result<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        for name in there {
            let text =
                r#"{"weight_map":{"a":"m-2.safetensors","b":"m-1.safetensors","c":"m-2.safetensors"}}"#;
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let files = find(dir.path(), library, preferred)?;
        Ok(files.iter().map(|f| f.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn the_preferred_variant_is_taken_and_the_other_stands_in() {
        use Library::{Diffusers, Transformers};
        let both = ["model.safetensors", "model.fp16.safetensors"];
        assert_eq!(found(Transformers, Variant::Default, &both).unwrap(), ["model.safetensors"]);
        assert_eq!(found(Transformers, Variant::Fp16, &both).unwrap(), ["model.fp16.safetensors"]);
        assert_eq!(found(Transformers, Variant::Fp16, &both[..1]).unwrap(), ["model.safetensors"]);
        assert_eq!(found(Transformers, Variant::Default, &both[1..]).unwrap(), ["model.fp16.safetensors"]);
        let names = ["diffusion_pytorch_model.safetensors"];
        assert_eq!(found(Diffusers, Variant::Default, &names).unwrap(), names);
    }

    #[test]
    fn every_way_to_name_shards_is_known() {
        for index in [
            "diffusion_pytorch_model.safetensors.index.json",
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            "diffusion_pytorch_model.fp16.safetensors.index.json",
        ] {
            let files =
                found(Library::Diffusers, Variant::Fp16, &[index, "m-1.safetensors", "m-2.safetensors"]);
            assert_eq!(files.unwrap(), ["m-1.safetensors", "m-2.safetensors"], "{index}");
        }
        let index = ["model.safetensors.index.json", "m-1.safetensors"];
        let error = found(Library::Transformers, Variant::Default, &index).unwrap_err().to_string();
        assert!(error.contains("m-2.safetensors: is missing"), "{error}");
    }

    #[test]
    fn pickles_are_refused_with_the_way_out() {
        let error =
            found(Library::Transformers, Variant::Default, &["pytorch_model.bin"]).unwrap_err().to_string();
        assert!(error.contains("safe_serialization=True"), "{error}");
        let error = found(Library::Transformers, Variant::Default, &["readme"]).unwrap_err().to_string();
        assert!(error.contains("has no weights; needed: model.safetensors"), "{error}");
    }

    #[test]
    fn a_list_of_shards_leads_nowhere_else() {
        for name in [
            "../x.safetensors",
            "/x.safetensors",
            "a/b.safetensors",
            "a\\b.safetensors",
            "c:b.safetensors",
            "..",
            "",
            "x.bin",
            "x\u{0}.safetensors",
            ".hidden.safetensors",
        ] {
            let text = serde_json::json!({ "weight_map": { "t": name } }).to_string();
            assert!(parse_shard_index(text.as_bytes()).unwrap_err().contains("allowed:"), "{name}");
        }
        for text in
            ["", "[]", "{}", r#"{"weight_map":{}}"#, r#"{"weight_map":[]}"#, r#"{"weight_map":{"t":1}}"#]
        {
            assert!(parse_shard_index(text.as_bytes()).is_err(), "{text}");
        }
    }
}
