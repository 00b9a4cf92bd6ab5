//! Which embeddings a prompt names.
//!
//! A models folder may hold embeddings for several kinds of models, and a run reads only those that it is asked for: one
//! whose name stands in a prompt as a whole word, in any case.

use std::path::Path;

use crate::embedding::{EmbeddingEncoder, EmbeddingFile};
use crate::shelf::Shelf;
use crate::{Error, Family, Result};

/// The embeddings of the models folder that prompts name, and what was passed over: one for another kind of model is
/// told in a sentence without its stop, and its name is read as plain words. Nothing is said of one whose name another
/// has that fits, as where a folder for each kind of model stands in the models folder.
///
/// `given` are embeddings that were named by their files: those of the folder with a name of theirs are left out.
///
/// # Errors
/// [`crate::Error::File`] for one that a prompt names and that can't be read, and for two of one name.
pub fn named_in(
    prompts: &[&str],
    given: &[EmbeddingFile],
    family: Family,
    models_dir: Option<&Path>,
) -> Result<(Vec<EmbeddingFile>, Vec<String>)> {
    let taken: Vec<String> = given.iter().flat_map(lower_names).collect();
    let mut found: Vec<Found> = Vec::new();
    let mut passed: Vec<(Vec<String>, Result<String>)> = Vec::new();
    for shelved in Shelf::Embeddings.list(models_dir) {
        let opened = EmbeddingFile::open(&shelved.path);
        let mut names = opened.as_ref().map_or_else(|_| vec![shelved.name().to_lowercase()], lower_names);
        let clashes = names.iter().any(|name| taken.contains(name));
        names.retain(|name| is_named(name, prompts));
        if clashes || names.is_empty() {
            continue;
        }
        match opened {
            Ok(file) if fits(&file, family) => found.push(Found { id: shelved.id, names, file }),
            Ok(_) => {
                let id = shelved.id;
                let note = format!(
                    "the embedding {id} is for another kind of model than {family}, so its name is read as plain words"
                );
                passed.push((names, Ok(note)));
            }
            Err(error) => passed.push((names, Err(error))),
        }
    }
    for (number, second) in found.iter().enumerate() {
        if let Some(first) = found[..number].iter().find(|first| shares(&first.names, &second.names)) {
            return Err(Error::file(
                second.file.path(),
                format!("is named by the prompt, and so is {}; rename or remove one of them", first.id),
            ));
        }
    }
    let unknown = passed.into_iter().filter(|(names, _)| !found.iter().any(|one| shares(&one.names, names)));
    let notes = unknown.map(|(_, note)| note).collect::<Result<_>>()?;
    Ok((found.into_iter().map(|one| one.file).collect(), notes))
}

/// An embedding of the models folder that a prompt names.
struct Found {
    id: String,
    /// Those of its names that the prompt holds.
    names: Vec<String>,
    file: EmbeddingFile,
}

fn lower_names(file: &EmbeddingFile) -> Vec<String> {
    file.names().iter().map(|name| name.to_lowercase()).collect()
}

fn shares(these: &[String], those: &[String]) -> bool {
    these.iter().any(|name| those.contains(name))
}

/// Whether a file has vectors for each text encoder of a family.
fn fits(file: &EmbeddingFile, family: Family) -> bool {
    let needed: &[EmbeddingEncoder] = match family {
        Family::StableDiffusion => &[EmbeddingEncoder::Only],
        Family::StableDiffusionXl => &[EmbeddingEncoder::ClipL, EmbeddingEncoder::ClipG],
        Family::StableDiffusionXlRefiner => &[EmbeddingEncoder::ClipG],
    };
    needed.iter().all(|encoder| file.parts().iter().any(|part| part.encoder == *encoder))
}

/// Whether `name` stands in one of the texts, in any case and not inside a longer word.
fn is_named(name: &str, texts: &[&str]) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let name = plain(name);
    let joins = |a: Option<char>, b: Option<char>| {
        a.is_some_and(char::is_alphanumeric) && b.is_some_and(char::is_alphanumeric)
    };
    !name.is_empty()
        && texts.iter().map(|text| plain(text)).any(|text| {
            text.match_indices(&name).any(|(at, found)| {
                let (before, after) = (&text[..at], &text[at + found.len()..]);
                !joins(before.chars().next_back(), name.chars().next())
                    && !joins(name.chars().next_back(), after.chars().next())
            })
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_whole_words_in_any_case() {
        for text in ["a Cat toy", "(cat  toy:1.2)", "<cat toy>", "no cats, a CAT TOY"] {
            assert!(is_named("cat toy", &[text]), "{text}");
        }
        for text in ["a concat toy", "cat toys", "cat", ""] {
            assert!(!is_named("cat toy", &["x", text]), "{text}");
        }
        assert!(!is_named("", &["x"]));
    }

    fn write(path: &Path, tensors: &[&str]) {
        let entries = tensors.iter().enumerate().map(|(i, name)| {
            format!(r#""{name}":{{"dtype":"F32","shape":[1,2],"data_offsets":[{},{}]}}"#, 8 * i, 8 * i + 8)
        });
        let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; 8 * tensors.len()]);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn only_what_is_asked_for_is_read() {
        let models = tempfile::tempdir().unwrap();
        let folder = models.path().join("embeddings");
        write(&folder.join("ink.safetensors"), &["emb_params"]);
        write(&folder.join("moss.safetensors"), &["clip_l", "clip_g"]);
        std::fs::write(folder.join("broken.safetensors"), "x").unwrap();
        let read = |prompt, family| named_in(&[prompt], &[], family, Some(models.path()));
        let names = |prompt, family| {
            let (found, notes) = read(prompt, family).unwrap();
            (found.iter().map(|file| file.names()[0].clone()).collect::<Vec<_>>(), notes.len())
        };
        assert_eq!(names("a cat", Family::StableDiffusion), (vec![], 0));
        assert_eq!(names("ink and moss", Family::StableDiffusion), (vec!["ink".into()], 1));
        assert_eq!(names("INK and moss", Family::StableDiffusionXl), (vec!["moss".into()], 1));
        assert!(read("a broken cup", Family::StableDiffusion).unwrap_err().to_string().contains("broken"));
        let given = [EmbeddingFile::open(&folder.join("ink.safetensors")).unwrap()];
        let (found, _) = named_in(&["ink"], &given, Family::StableDiffusion, Some(models.path())).unwrap();
        assert!(found.is_empty());
    }

    #[test]
    fn a_name_means_the_embedding_that_fits() {
        let models = tempfile::tempdir().unwrap();
        let folder = models.path().join("embeddings");
        write(&folder.join("sd15/easy.safetensors"), &["emb_params"]);
        write(&folder.join("sdxl/easy.safetensors"), &["clip_l", "clip_g"]);
        std::fs::create_dir_all(folder.join("other")).unwrap();
        std::fs::write(folder.join("other/easy.safetensors"), "x").unwrap();
        let read = || named_in(&["easy"], &[], Family::StableDiffusionXl, Some(models.path()));
        let (found, notes) = read().unwrap();
        assert_eq!((found.len(), notes.len()), (1, 0));
        assert!(found[0].path().ends_with("sdxl/easy.safetensors"));

        write(&folder.join("third/Easy.safetensors"), &["clip_l", "clip_g"]);
        let message = read().unwrap_err().to_string();
        assert!(message.contains("sdxl/easy") && message.contains("third/Easy"), "{message}");
    }
}
