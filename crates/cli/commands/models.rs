//! `infill models`: which models there are, where they lie, what is in them.

use std::collections::BTreeMap;
use std::path::Path;

use infill_models::shelf::Shelf;
use infill_models::{Checkpoint, Family, Summary, adapters, catalogue, embedded, inspect, places};
use serde::Serialize;

use crate::args::ModelsCommand;
use crate::failure::Result;
use crate::report::path_text;
use crate::settings::Settings;
use crate::stdout;

/// One line of the list.
#[derive(Debug, Serialize)]
struct Listed {
    /// `model`, or what goes on top of one: `adapter`, `lora`, `embedding`.
    kind: &'static str,
    id: String,
    name: Option<String>,
    repository: Option<String>,
    licence: Option<String>,
    notes: Option<String>,
    /// Whether it is part of the program.
    embedded: bool,
    /// Absent where the model is not on this machine, or part of the program.
    dir: Option<String>,
}

/// What is in a model.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    dir: String,
    family: &'static str,
    inpainting: bool,
    scheduler: Option<&'a str>,
    digest: String,
    components: Vec<Part>,
    /// The adapters that it brings, by name.
    adapters: Vec<String>,
    /// The LoRAs that it brings, by name.
    loras: Vec<String>,
}

/// One network of a model.
#[derive(Debug, Serialize)]
struct Part {
    name: String,
    class: String,
    files: usize,
    tensors: usize,
    parameters: u64,
    bytes: BTreeMap<String, u64>,
}

pub(crate) fn run(command: &ModelsCommand, settings: &Settings) -> Result<()> {
    match command {
        ModelsCommand::List { place } => {
            let models = listed(settings.models_dir(place.models.as_deref())?.as_deref())?;
            if place.json {
                return stdout::json(&models);
            }
            let width = models.iter().map(|model| model.id.chars().count()).max().unwrap_or(0);
            models.iter().try_for_each(|model| stdout::line(&list_line(model, width)))
        }
        ModelsCommand::Show { model, place } => {
            let checkpoint =
                catalogue::find(model, settings.models_dir(place.models.as_deref())?.as_deref())?;
            let shown = shown(&checkpoint)?;
            if place.json { stdout::json(&shown) } else { stdout::line(&show_lines(&shown)) }
        }
        ModelsCommand::Pull { model, fp16, json } => {
            let dir = pull(model, *fp16)?;
            if *json { stdout::json(&serde_json::json!({ "dir": dir })) } else { stdout::line(&dir) }
        }
    }
}

/// The family's name in the reports, as diffusers names the pipeline's family.
pub(crate) fn family_name(family: Family) -> &'static str {
    match family {
        Family::StableDiffusion => "stable-diffusion",
        Family::StableDiffusionXl => "stable-diffusion-xl",
        Family::StableDiffusionXlRefiner => "stable-diffusion-xl-refiner",
    }
}

/// The known models, the other ones of the models folder, what each of them brings, then what else goes on top of them.
fn listed(models_dir: Option<&Path>) -> Result<Vec<Listed>> {
    let known = catalogue::manifests()?;
    let mut others = Vec::new();
    let folder = models_dir.map(Path::to_owned).or_else(places::models_dir);
    // A models folder that is not there holds no models.
    for entry in folder.iter().filter_map(|folder| folder.read_dir().ok()).flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if entry.path().join("model_index.json").is_file() && known.iter().all(|manifest| manifest.id != id) {
            others.push(Listed { dir: Some(path_text(&entry.path())), ..Listed::named("model", id) });
        }
    }
    others.sort_by(|a, b| a.id.cmp(&b.id));
    let mut all: Vec<Listed> = known
        .into_iter()
        .map(|manifest| Listed {
            kind: "model",
            embedded: manifest.is_embedded(),
            // Asking for the folder of the embedded one would write it.
            dir: if manifest.is_embedded() {
                None
            } else {
                catalogue::locate(&manifest.id, models_dir).ok().map(|dir| path_text(&dir))
            },
            id: manifest.id,
            name: Some(manifest.name),
            repository: manifest.repository,
            licence: Some(manifest.licence),
            notes: Some(manifest.notes),
        })
        .collect();
    all.append(&mut others);
    let brought: Vec<Listed> = all.iter().flat_map(brought_by).collect();
    Ok(all.into_iter().chain(brought).chain(on_top(models_dir)).collect())
}

/// What a model brings to go on top of itself.
fn brought_by(model: &Listed) -> Vec<Listed> {
    let named = |kind, what: &str, id: String| Listed {
        name: Some(format!("{what} of {}", model.id)),
        embedded: model.embedded,
        ..Listed::named(kind, id)
    };
    if model.embedded {
        let adapters = embedded::brings("ip_adapter").map(|id| named("adapter", "adapter", id.to_owned()));
        let loras = embedded::brings(Shelf::Loras.folder()).map(|id| named("lora", "LoRA", id.to_owned()));
        return adapters.chain(loras).collect();
    }
    let Some(dir) = model.dir.as_deref().map(Path::new) else { return Vec::new() };
    let adapters = adapters::brought_by(dir)
        .into_iter()
        .map(|path| Listed { dir: Some(path_text(&path)), ..named("adapter", "adapter", stem(&path)) });
    let loras = Shelf::Loras
        .brought_by(dir)
        .into_iter()
        .map(|shelved| Listed { dir: Some(path_text(&shelved.path)), ..named("lora", "LoRA", shelved.id) });
    adapters.chain(loras).collect()
}

/// The name of a file without its extension.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is on this machine to go on top of a model.
fn on_top(models_dir: Option<&Path>) -> impl Iterator<Item = Listed> + '_ {
    let adapters = adapters::listed(models_dir).into_iter().map(|adapter| {
        let family = adapter.family;
        let name = match adapter.image_encoder {
            Some(_) => format!("adapter for {family}"),
            None => format!("adapter for {family}; its image encoder is not here"),
        };
        let dir = Some(path_text(&adapter.path));
        Listed { name: Some(name), dir, ..Listed::named("adapter", adapter.id) }
    });
    let shelved = [(Shelf::Loras, "lora", "LoRA"), (Shelf::Embeddings, "embedding", "embedding")];
    let shelved = shelved.into_iter().flat_map(move |(shelf, kind, name)| {
        shelf.list(models_dir).into_iter().map(move |shelved| Listed {
            name: Some(name.to_owned()),
            dir: Some(path_text(&shelved.path)),
            ..Listed::named(kind, shelved.id)
        })
    });
    adapters.chain(shelved)
}

impl Listed {
    /// Of which nothing else is known.
    fn named(kind: &'static str, id: String) -> Self {
        Self {
            kind,
            id,
            name: None,
            repository: None,
            licence: None,
            notes: None,
            embedded: false,
            dir: None,
        }
    }
}

/// `width` is the longest id's.
fn list_line(model: &Listed, width: usize) -> String {
    let name = model.name.as_deref().unwrap_or("your own");
    let elsewhere = if model.embedded { "built in" } else { "not on this machine" };
    let dir = model.dir.as_deref().unwrap_or(elsewhere);
    format!("{:<width$} {name:<36} {dir}", model.id)
}

fn shown(checkpoint: &Checkpoint) -> Result<Shown<'_>> {
    let part = |Summary { component, class, files, tensors, parameters, bytes }| Part {
        name: component,
        class,
        files,
        tensors,
        parameters,
        bytes,
    };
    Ok(Shown {
        dir: path_text(checkpoint.dir()),
        family: family_name(checkpoint.family()),
        inpainting: checkpoint.is_inpaint(),
        scheduler: checkpoint.scheduler_config()?.get("_class_name").and_then(|class| class.as_str()),
        digest: checkpoint.digest()?,
        components: inspect(checkpoint)?.into_iter().map(part).collect(),
        adapters: adapters::brought_by(checkpoint.dir()).iter().map(|path| stem(path)).collect(),
        loras: Shelf::Loras.brought_by(checkpoint.dir()).into_iter().map(|shelved| shelved.id).collect(),
    })
}

fn show_lines(shown: &Shown<'_>) -> String {
    let kind = if shown.inpainting { "inpainting model" } else { "base model" };
    let mut lines = vec![
        shown.dir.clone(),
        format!("family      {}, {kind}", shown.family),
        format!("scheduler   {}", shown.scheduler.unwrap_or("none")),
        format!("digest      {}", shown.digest),
    ];
    for part in &shown.components {
        let formats: Vec<&str> = part.bytes.keys().map(String::as_str).collect();
        lines.push(format!(
            "{:<16} {:<28} {:>6} tensors {:>14} parameters {:>9.1} MiB {}",
            part.name,
            part.class,
            part.tensors,
            part.parameters,
            part.bytes.values().sum::<u64>() as f64 / f64::from(1 << 20),
            formats.join("+"),
        ));
    }
    for (name, brought) in [("adapters", &shown.adapters), ("LoRAs", &shown.loras)] {
        if !brought.is_empty() {
            lines.push(format!("{name:<11} {}", brought.join(", ")));
        }
    }
    lines.join("\n")
}

/// Fetches a known model into the hub's cache; its folder.
#[cfg(feature = "hub")]
fn pull(model: &str, fp16: bool) -> Result<String> {
    use infill_models::Variant;
    use infill_models::hub::{self, PullProgress};

    let variant = if fp16 { Variant::Fp16 } else { Variant::Default };
    let bar = crate::progress::bytes_bar();
    let told = bar.clone();
    let folder = hub::pull(model, variant, move |progress| match progress {
        PullProgress::Downloading { done, total } => {
            told.set_length(total);
            told.set_position(done);
        }
        PullProgress::Verifying { file } => told.set_message(format!("verifying {file}")),
    });
    bar.finish_and_clear();
    Ok(path_text(&folder?))
}

#[cfg(not(feature = "hub"))]
fn pull(model: &str, _: bool) -> Result<String> {
    catalogue::to_fetch(model)?;
    Err(crate::failure::Failure::Refused(format!(
        "{model} can't be fetched: this infill was built without the feature `hub` and has no network client"
    )))
}
