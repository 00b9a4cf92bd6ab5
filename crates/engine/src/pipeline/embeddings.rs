//! Textual inversions, put behind the last token of each text encoder.

use infill_models::embedding::{EmbeddingEncoder, EmbeddingFile, EmbeddingPart};
use infill_models::{Error as ModelError, Family};
use infill_networks::prompt::AddedWord;
use infill_networks::weights::Weights;
use infill_networks::{DType, Device, Tensor};

use super::{Pipeline, TextEncoder};
use crate::Result;

/// What one text encoder gets.
#[derive(Default)]
struct Added {
    words: Vec<AddedWord>,
    vectors: Vec<Tensor>,
}

impl Pipeline {
    /// Makes exactly these embeddings known to the text encoders; prompts name them from then on.
    ///
    /// The files are small and read every time, so that encoders that were built anew get them too.
    ///
    /// # Errors
    /// A file that was made for another model, or whose name another has too. Nothing changes then.
    pub(super) fn set_embeddings(&mut self, files: &[EmbeddingFile]) -> Result<()> {
        check_names(files)?;
        let mut all: Vec<Added> = Vec::new();
        for encoder in &self.text_encoders {
            let role = role(self.family, encoder);
            let mut added = Added::default();
            let mut next = encoder.model.vocab_size()?;
            for file in files {
                let part = part_for(file, role, encoder)?;
                added.words.push(AddedWord {
                    names: file.names(),
                    first_id: next as u32,
                    vectors: part.vectors() as u32,
                });
                next += part.vectors();
                added.vectors.push(read(file, part, self.dtype)?);
            }
            all.push(added);
        }
        for (encoder, Added { words, vectors }) in self.text_encoders.iter_mut().zip(all) {
            let vectors = if vectors.is_empty() { None } else { Some(Tensor::cat(&vectors, 0)?) };
            encoder.model.set_added_tokens(vectors.as_ref())?;
            encoder.added_words = words;
        }
        let name = |file: &EmbeddingFile| file.names().first().cloned().unwrap_or_default();
        self.embedding_names = files.iter().map(name).collect();
        Ok(())
    }
}

fn role(family: Family, encoder: &TextEncoder) -> EmbeddingEncoder {
    match (family, encoder.tap) {
        (Family::StableDiffusion, _) => EmbeddingEncoder::Only,
        (_, "te1") => EmbeddingEncoder::ClipL,
        _ => EmbeddingEncoder::ClipG,
    }
}

fn refused(
    file: &EmbeddingFile,
    what: &str,
    value: &dyn std::fmt::Display,
    allowed: impl Into<String>,
) -> crate::Error {
    ModelError::Unsupported {
        path: file.path().to_owned(),
        what: what.to_owned(),
        value: value.to_string(),
        allowed: allowed.into(),
    }
    .into()
}

/// The vectors of `file` for the encoder in this role.
fn part_for<'a>(
    file: &'a EmbeddingFile,
    role: EmbeddingEncoder,
    encoder: &TextEncoder,
) -> Result<&'a EmbeddingPart> {
    let has: Vec<&str> = file.parts().iter().map(|part| part.encoder.name()).collect();
    let part = file.parts().iter().find(|part| part.encoder == role);
    let part = part.ok_or_else(|| {
        let needed = format!("vectors for {}, which this model has", role.name());
        refused(file, "the embedding", &format!("made for {}", has.join(" and ")), needed)
    })?;
    let width = encoder.model.hidden_size()?;
    if part.width() != width {
        let what = format!("the width of the embedding's vectors for {}", role.name());
        return Err(refused(file, &what, &part.width(), format!("{width} with this model")));
    }
    let most = encoder.tokenizer.model_max_length() - 2;
    if part.vectors() > most {
        let allowed = format!("up to {most}, which are a chunk");
        return Err(refused(file, "the number of the embedding's vectors", &part.vectors(), allowed));
    }
    Ok(part)
}

/// `(vectors, width)` in the format of the run, on the host.
fn read(file: &EmbeddingFile, part: &EmbeddingPart, dtype: DType) -> Result<Tensor> {
    let files = [file.path().to_owned()];
    let weights = Weights::open("embedding", &files, str::to_owned, dtype, &Device::Cpu)?.finite();
    for other in file.parts() {
        weights.ignore(&other.tensor);
    }
    let vectors = weights.get(&part.tensor, &part.shape)?;
    weights.finish()?;
    Ok(vectors.reshape((part.vectors(), part.width()))?)
}

/// No word may stand for two embeddings.
fn check_names(files: &[EmbeddingFile]) -> Result<()> {
    for (i, file) in files.iter().enumerate() {
        for earlier in &files[..i] {
            let names: Vec<String> = earlier.names().iter().map(|name| name.to_lowercase()).collect();
            if let Some(name) = file.names().iter().find(|name| names.contains(&name.to_lowercase())) {
                let allowed = format!("a name that {} does not have", earlier.path().display());
                return Err(refused(file, "the embedding's name", name, allowed));
            }
        }
    }
    Ok(())
}
