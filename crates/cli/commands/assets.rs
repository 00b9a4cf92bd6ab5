//! `infill assets`: the pictures of the store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use infill_engine::image::{self, Picture, media_type};
use infill_store::{Asset, AssetId, AssetMeta, Limits, Pruned, Store, iso};
use serde::Serialize;
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::report::path_text;
use crate::settings::Settings;
use crate::store_args::AssetsCommand;
use crate::{kept, output, pictures, stderr, stdout, table};

/// An asset as `--json` prints it.
#[derive(Debug, Serialize)]
struct Told {
    id: String,
    path: String,
    media_type: String,
    width: Option<u32>,
    height: Option<u32>,
    bytes: u64,
    parent: Option<String>,
    hidden: bool,
    created_at: String,
    recipe: Option<Value>,
}

/// A pruning as `--json` prints it.
#[derive(Debug, Serialize)]
struct ToldPruned<'a> {
    removed: Vec<&'a str>,
    kept: usize,
    kept_bytes: u64,
    jobs: usize,
    dry_run: bool,
}

pub(crate) fn run(command: &AssetsCommand, settings: &Settings) -> Result<()> {
    match command {
        AssetsCommand::Add { files, parent, hide, place } => {
            // The store is made for pictures alone: where there is none to add there is none.
            for file in files {
                pictures::read(file, "picture", &image::Limits::default(), Picture::decode)?;
            }
            let store = Store::open(&settings.store_dir(place.store.as_deref())?)?;
            let added = add(&store, files, parent.as_deref(), *hide)?;
            if place.json {
                return stdout::json(&told_all(&store, &added));
            }
            added.iter().try_for_each(|asset| stdout::line(asset.id.as_str()))
        }
        AssetsCommand::List { all, place } => {
            let store = kept::open(settings, place.store.as_deref())?;
            let assets = store.list(*all)?;
            if place.json {
                return stdout::json(&told_all(&store, &assets));
            }
            if assets.is_empty() {
                stderr::line("note: the store has no pictures to list");
                return Ok(());
            }
            let heading =
                ["ID", "PIXELS", "SIZE", "TYPE", "CREATED (UTC)", "PARENT"].map(str::to_owned).to_vec();
            let rows: Vec<_> = std::iter::once(heading).chain(assets.iter().map(row)).collect();
            table::lines(&rows).iter().try_for_each(|line| stdout::line(line))
        }
        AssetsCommand::Show { id, place } => {
            let store = kept::open(settings, place.store.as_deref())?;
            let told = told(&store, &store.get(&id.parse()?)?);
            if place.json { stdout::json(&told) } else { stdout::line(&show_lines(&told)) }
        }
        AssetsCommand::Export { id, out, force, place } => {
            let store = kept::open(settings, place.store.as_deref())?;
            let path = path_text(&export(&store, &id.parse()?, out.as_deref(), *force)?);
            if place.json {
                stdout::json(&serde_json::json!({ "id": id, "path": path }))
            } else {
                stdout::line(&path)
            }
        }
        AssetsCommand::Rm { ids, place } => {
            let store = kept::open(settings, place.store.as_deref())?;
            let removed = remove(&store, ids)?;
            if place.json { stdout::json(&removed) } else { Ok(()) }
        }
        AssetsCommand::Prune { limits, dry_run, place } => {
            let limits = settings.limits(limits, Duration::ZERO)?;
            if limits.is_none() {
                return Err(Failure::Refused(
                    "no limit is set; allowed: --max-size, --max-age, or these in the settings".to_owned(),
                ));
            }
            let store = kept::open(settings, place.store.as_deref())?;
            let pruned = if *dry_run { store.prunable(&limits)? } else { prune(&store, &limits)? };
            if place.json {
                return stdout::json(&ToldPruned {
                    removed: pruned.removed.iter().map(|asset| asset.id.as_str()).collect(),
                    kept: pruned.kept,
                    kept_bytes: pruned.kept_bytes,
                    jobs: pruned.jobs,
                    dry_run: *dry_run,
                });
            }
            pruned.removed.iter().try_for_each(|asset| stdout::line(asset.id.as_str()))?;
            let jobs = match pruned.jobs {
                0 => String::new(),
                jobs => format!(" and {}", kept::counted(jobs, "job")),
            };
            stderr::line(&format!(
                "note: {}{jobs} {}, {} kept with {}",
                kept::counted(pruned.removed.len(), "picture"),
                if *dry_run { "would go" } else { "removed" },
                pruned.kept,
                kept::bytes(pruned.kept_bytes),
            ));
            Ok(())
        }
    }
}

/// Stores pictures: all are read before the first is put, so that one that is refused leaves nothing behind.
fn add(store: &Store, files: &[PathBuf], parent: Option<&str>, hidden: bool) -> Result<Vec<Asset>> {
    let parent: Option<AssetId> = parent.map(str::parse).transpose()?;
    if let Some(parent) = &parent {
        store.get(parent)?;
    }
    let limits = image::Limits::default();
    let mut added = Vec::new();
    for file in files {
        // Read again after the check, one by one: so many pictures may not fit into memory together.
        let bytes = pictures::bytes(file, "picture", &limits)?;
        let size = pictures::decode(&bytes, file, "picture", &limits, Picture::decode)?.size();
        let meta = AssetMeta {
            media_type: media_type(&bytes).unwrap_or("application/octet-stream").to_owned(),
            width: Some(size.width),
            height: Some(size.height),
            parent: parent.clone(),
            hidden,
            recipe: None,
            passing: false,
        };
        let asset = store.get(&store.put(&bytes, &meta)?)?;
        if asset.meta.parent != parent || asset.meta.hidden != hidden {
            let file = file.display();
            stderr::line(&format!(
                "note: {file} was in the store already, as {}, and stays as it was",
                asset.id
            ));
        }
        added.push(asset);
    }
    Ok(added)
}

/// Copies a picture to a file.
fn export(store: &Store, id: &AssetId, out: Option<&Path>, force: bool) -> Result<PathBuf> {
    let asset = store.get(id)?;
    let extensions: &[&str] = match asset.meta.media_type.as_str() {
        "image/png" => &["png"],
        "image/jpeg" => &["jpg", "jpeg"],
        "image/webp" => &["webp"],
        _ => &["bin"],
    };
    let own = PathBuf::from(format!("{id}.{}", extensions[0]));
    let out = out.unwrap_or(&own);
    let refused =
        |why: &str, allowed: &str| Failure::value("--out", format!("{} ({why})", out.display()), allowed);
    let fits = out.extension().is_some_and(|ext| extensions.iter().any(|one| ext.eq_ignore_ascii_case(one)));
    if !fits {
        let why = format!("the picture is {}", asset.meta.media_type);
        return Err(refused(&why, &format!("a path that ends in .{}", extensions.join(" or ."))));
    }
    if out.exists() && !out.is_file() {
        return Err(refused("not a file", "a path for a file"));
    }
    if out.exists() && !force {
        return Err(refused("it is there already", "another path, or --force"));
    }
    if !output::folder_of(out).is_dir() {
        return Err(refused("its folder does not exist", "a path in a folder that exists"));
    }
    output::write_whole(out, &store.bytes(id)?)?;
    Ok(out.to_owned())
}

/// Removes assets: all are looked up before the first goes.
fn remove<'a>(store: &Store, ids: &'a [String]) -> Result<Vec<&'a str>> {
    let mut found = Vec::new();
    for text in ids {
        let id: AssetId = text.parse()?;
        store.get(&id)?;
        if let Some(job) = store.needed_by(&id)? {
            return Err(infill_store::Error::Needed { id, job }.into());
        }
        if !found.contains(&(id.clone(), text.as_str())) {
            found.push((id, text.as_str()));
        }
    }
    for (id, _) in &found {
        store.remove(id)?;
    }
    Ok(found.into_iter().map(|(_, text)| text).collect())
}

/// Removes what is beyond the limits, and what crashes left behind.
fn prune(store: &Store, limits: &Limits) -> Result<Pruned> {
    store.sweep()?;
    Ok(store.prune(limits)?)
}

fn told_all(store: &Store, assets: &[Asset]) -> Vec<Told> {
    assets.iter().map(|asset| told(store, asset)).collect()
}

fn told(store: &Store, asset: &Asset) -> Told {
    let meta = &asset.meta;
    // A recipe is JSON; were it not, it would be told as the text that it is.
    let recipe =
        meta.recipe.as_deref().map(|text| serde_json::from_str(text).unwrap_or_else(|_| text.into()));
    Told {
        id: asset.id.to_string(),
        path: path_text(&store.path(asset)),
        media_type: meta.media_type.clone(),
        width: meta.width,
        height: meta.height,
        bytes: asset.size,
        parent: meta.parent.as_ref().map(AssetId::to_string),
        hidden: meta.hidden,
        created_at: iso(asset.created_at),
        recipe,
    }
}

fn row(asset: &Asset) -> Vec<String> {
    let parent = asset.meta.parent.as_ref().map_or("-", AssetId::as_str);
    vec![
        asset.id.to_string(),
        kept::pixels(asset),
        kept::bytes(asset.size),
        asset.meta.media_type.clone(),
        kept::minute(asset.created_at),
        format!("{parent}{}", if asset.meta.hidden { "  hidden" } else { "" }),
    ]
}

fn show_lines(told: &Told) -> String {
    let mut lines = vec![
        told.id.clone(),
        format!("file      {}", told.path),
        format!("type      {}", told.media_type),
        format!("bytes     {}", told.bytes),
        format!("created   {}", told.created_at),
    ];
    if let (Some(width), Some(height)) = (told.width, told.height) {
        lines.insert(3, format!("pixels    {width}x{height}"));
    }
    if let Some(parent) = &told.parent {
        lines.push(format!("parent    {parent}"));
    }
    if told.hidden {
        lines.push("hidden    yes".to_owned());
    }
    if let Some(recipe) = &told.recipe {
        lines.push(format!("recipe    {recipe:#}"));
    }
    lines.join("\n")
}
