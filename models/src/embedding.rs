//! A textual inversion: vectors that stand for a word in the prompt.
//!
//! Three forms are in use: one tensor under the word's own name (diffusers' `learned_embeds.safetensors`), one tensor
//! `emb_params` (stable-diffusion-webui), and `clip_l` with `clip_g` for the two text encoders of SDXL.

use std::path::Path;

use crate::tensor_file::TensorFile;
use crate::{Error, Result, TensorInfo};

/// Keys that say what a tensor is, and so are no words.
const KEYS: [&str; 4] = ["emb_params", "clip_l", "clip_g", "*"];

/// An opened embedding.
#[derive(Debug, Clone)]
pub struct EmbeddingFile {
    file: TensorFile,
    parts: Vec<EmbeddingPart>,
}

/// The vectors for one text encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingPart {
    /// Which encoder.
    pub encoder: EmbeddingEncoder,
    /// The tensor's name in the file.
    pub tensor: String,
    /// The tensor's shape: (vectors, width), or (width) of a single vector.
    pub shape: Vec<usize>,
}

/// The text encoder that vectors are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddingEncoder {
    /// The only one of Stable Diffusion 1 and 2.
    Only,
    /// SDXL's first: CLIP ViT-L.
    ClipL,
    /// SDXL's second: OpenCLIP ViT-bigG.
    ClipG,
}

impl EmbeddingEncoder {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Only => "a single text encoder",
            Self::ClipL => "clip_l",
            Self::ClipG => "clip_g",
        }
    }
}

impl EmbeddingPart {
    /// How many vectors.
    pub fn vectors(&self) -> usize {
        if self.shape.len() == 2 { self.shape[0] } else { 1 }
    }

    /// The length of each.
    pub fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }
}

impl EmbeddingFile {
    /// Opens a `.safetensors` file.
    ///
    /// # Errors
    /// [`Error::File`] when it is a pickle, can't be read, or holds other tensors than the vectors of one word.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path, "embedding")?;
        let parts = parts(file.tensors()).map_err(|reason| Error::file(path, reason))?;
        Ok(Self { file, parts })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Its vectors, one part for each text encoder.
    pub fn parts(&self) -> &[EmbeddingPart] {
        &self.parts
    }

    /// How a prompt names it: by the file's name without extension or by its own key, each also in `<` and `>`.
    pub fn names(&self) -> Vec<String> {
        let stem = self.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let keys = self.parts.iter().map(|part| part.tensor.clone());
        let keys = keys.filter(|key| !KEYS.contains(&key.as_str()));
        let mut names = Vec::new();
        for name in stem.into_iter().chain(keys) {
            let name = name.trim();
            let bracketed = name.starts_with('<') && name.ends_with('>');
            let in_brackets = (!bracketed).then(|| format!("<{name}>"));
            for name in [name.to_owned()].into_iter().chain(in_brackets) {
                if !name.is_empty() && !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// SHA-256 of its contents.
    ///
    /// # Errors
    /// [`Error::File`] when it can't be read.
    pub fn digest(&self) -> Result<String> {
        self.file.digest()
    }
}

/// What the tensors are, or why they are no embedding.
fn parts(
    tensors: &std::collections::BTreeMap<String, TensorInfo>,
) -> std::result::Result<Vec<EmbeddingPart>, String> {
    let of_sdxl = |name: &str| match name {
        "clip_l" => Some(EmbeddingEncoder::ClipL),
        "clip_g" => Some(EmbeddingEncoder::ClipG),
        _ => None,
    };
    let known = tensors.len() == 1 || tensors.keys().all(|name| of_sdxl(name).is_some());
    if !known {
        let names: Vec<&str> = tensors.keys().take(4).map(String::as_str).collect();
        return Err(format!(
            "holds {} tensors ({}{}); needed for an embedding: one tensor, or clip_l and clip_g",
            tensors.len(),
            names.join(", "),
            if tensors.len() > names.len() { ", ..." } else { "" }
        ));
    }
    // The first encoder first.
    let mut parts = Vec::new();
    for (name, info) in tensors.iter().rev() {
        let shape = &info.shape;
        if !matches!(shape.len(), 1 | 2) || shape.contains(&0) {
            return Err(format!("holds {name} of shape {shape:?}; needed: (vectors, width)"));
        }
        if !["F32", "F16", "BF16", "F64"].contains(&info.dtype.as_str()) {
            return Err(format!("holds {name} as {}; needed: F32, F16, BF16 or F64", info.dtype));
        }
        let encoder = of_sdxl(name).unwrap_or(EmbeddingEncoder::Only);
        parts.push(EmbeddingPart { encoder, tensor: name.clone(), shape: shape.clone() });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A file of zeros in F32.
    fn open(name: &str, tensors: &[(&str, &[usize])]) -> Result<EmbeddingFile> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for (name, shape) in tensors {
            let start = end;
            end += 4 * shape.iter().product::<usize>();
            let info = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
            header.insert((*name).to_owned(), info);
        }
        let header = serde_json::Value::Object(header).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + end, 0);
        std::fs::write(&path, bytes).unwrap();
        EmbeddingFile::open(&path)
    }

    #[test]
    fn the_three_forms_are_told_apart() {
        let diffusers = open("learned_embeds.safetensors", &[("<cat-toy>", &[768])]).unwrap();
        assert_eq!(diffusers.names(), ["learned_embeds", "<learned_embeds>", "<cat-toy>"]);
        let part = &diffusers.parts()[0];
        assert_eq!((part.encoder, part.vectors(), part.width()), (EmbeddingEncoder::Only, 1, 768));

        let webui = open("EasyNegative.safetensors", &[("emb_params", &[8, 768])]).unwrap();
        assert_eq!(webui.names(), ["EasyNegative", "<EasyNegative>"]);
        assert_eq!((webui.parts()[0].vectors(), webui.parts()[0].width()), (8, 768));

        let sdxl = open("x.safetensors", &[("clip_g", &[2, 1280]), ("clip_l", &[2, 768])]).unwrap();
        let encoders: Vec<_> = sdxl.parts().iter().map(|part| (part.encoder, part.width())).collect();
        assert_eq!(encoders, [(EmbeddingEncoder::ClipL, 768), (EmbeddingEncoder::ClipG, 1280)]);
        assert_eq!(sdxl.names(), ["x", "<x>"]);
    }

    #[test]
    fn what_is_no_embedding_is_refused() {
        let refused = |tensors: &[(&str, &[usize])], part: &str| {
            let error = open("x.safetensors", tensors).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        refused(&[("a", &[2]), ("b", &[2])], "holds 2 tensors (a, b); needed for an embedding: one tensor");
        refused(&[("emb_params", &[1, 2, 3])], "emb_params of shape [1, 2, 3]; needed: (vectors, width)");
        refused(&[("emb_params", &[0, 768])], "needed: (vectors, width)");
    }
}
