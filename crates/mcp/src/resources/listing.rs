//! The list of resources: the models on this machine, then the pictures that are not hidden, then the jobs, each newest
//! first. It comes in pages, and a page's place does not move when something new is made.

use std::cmp::Reverse;

use infill_store::{Asset, Job, iso};
use rmcp::model::{Annotations, ErrorData, Resource};
use serde_json::Value;

use super::{Scheme, failed};
use crate::arguments::{shorten, show_text};
use crate::studio::Studio;

/// Resources of one page.
const PAGE: usize = 100;

/// The place of a resource in the whole list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    section: u8,
    /// Milliseconds since 1970; the newest come first.
    made: Reverse<i64>,
    id: String,
}

impl Place {
    fn new(scheme: Scheme, made: i64, id: &str) -> Self {
        let section = match scheme {
            Scheme::Model => 0,
            Scheme::Asset => 1,
            Scheme::Job => 2,
        };
        Self { section, made: Reverse(made), id: id.to_owned() }
    }

    fn cursor(&self) -> String {
        format!("{}/{}/{}", self.section, self.made.0, self.id)
    }

    fn read(cursor: &str) -> Option<Self> {
        let mut parts = cursor.splitn(3, '/');
        let section = parts.next()?.parse().ok().filter(|section| *section <= 2)?;
        let made = Reverse(parts.next()?.parse().ok()?);
        Some(Self { section, made, id: parts.next()?.to_owned() })
    }
}

/// The resources of the page that a cursor begins, the first without one; and the cursor of the next.
///
/// # Errors
/// A cursor that no page gave; a store that refuses.
pub(crate) fn list(
    studio: &Studio,
    cursor: Option<&str>,
) -> Result<(Vec<Resource>, Option<String>), ErrorData> {
    let after = cursor.map(|cursor| {
        Place::read(cursor).ok_or_else(|| {
            let message =
                format!("cursor is {}; allowed: the nextCursor of an earlier page", show_text(cursor));
            ErrorData::invalid_params(message, None)
        })
    });
    let mut page = Page { after: after.transpose()?, found: Vec::new() };
    page.fill(studio.holdings.model_ids(), |id| Place::new(Scheme::Model, 0, id), |id| model(studio, id));
    if page.has_room() {
        let assets = studio.store.list(false).map_err(|error| failed(&error))?;
        page.fill(assets, |one| Place::new(Scheme::Asset, one.created_at, one.id.as_str()), asset);
    }
    if page.has_room() {
        let jobs = studio.store.jobs().map_err(|error| failed(&error))?;
        page.fill(jobs, |one| Place::new(Scheme::Job, one.created_at, one.id.as_str()), job);
    }
    Ok(page.finish())
}

/// A page that is being filled, with one resource more where there is a next page.
struct Page {
    after: Option<Place>,
    found: Vec<(Place, Resource)>,
}

impl Page {
    fn has_room(&self) -> bool {
        self.found.len() <= PAGE
    }

    /// Takes the first that fit of one section.
    fn fill<T>(&mut self, all: Vec<T>, place: impl Fn(&T) -> Place, resource: impl Fn(&T) -> Resource) {
        let mut placed: Vec<(Place, T)> = all.into_iter().map(|one| (place(&one), one)).collect();
        placed.retain(|(place, _)| self.after.as_ref().is_none_or(|after| place > after));
        placed.sort_by(|(one, _), (other, _)| one.cmp(other));
        let room = PAGE + 1 - self.found.len();
        let fit = placed.into_iter().take(room);
        self.found.extend(fit.map(|(place, one)| (place, resource(&one))));
    }

    fn finish(mut self) -> (Vec<Resource>, Option<String>) {
        let more = self.found.len() > PAGE;
        self.found.truncate(PAGE);
        let next = self.found.last().filter(|_| more).map(|(place, _)| place.cursor());
        (self.found.into_iter().map(|(_, resource)| resource).collect(), next)
    }
}

fn model(studio: &Studio, id: &str) -> Resource {
    let about = studio.holdings.about(id);
    Resource::new(Scheme::Model.uri(id), id)
        .with_title(about.name.as_deref().unwrap_or(id))
        .with_description(about.kind)
        .with_mime_type("application/json")
}

fn asset(asset: &Asset) -> Resource {
    let recipe: Option<Value> = asset.meta.recipe.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let prompt = recipe.as_ref().and_then(|recipe| recipe["prompt"].as_str());
    let title = match prompt {
        Some("") => "Painted without words".to_owned(),
        Some(prompt) => shorten(prompt),
        None => "Picture that came in".to_owned(),
    };
    let mut description = format!("Of {}", iso(asset.created_at));
    if let (Some(width), Some(height)) = (asset.meta.width, asset.meta.height) {
        description.push_str(&format!(", {width}x{height} pixels"));
    }
    if let Some(parent) = &asset.meta.parent {
        description.push_str(&format!(", made from {parent}"));
    }
    if let Some(seed) = recipe.as_ref().and_then(|recipe| recipe["seed"].as_str()) {
        description.push_str(&format!(", seed {seed}"));
    }
    Resource::new(Scheme::Asset.uri(asset.id.as_str()), asset.id.as_str())
        .with_title(title)
        .with_description(description)
        .with_mime_type(&asset.meta.media_type)
        .with_size(asset.size)
        .with_annotations(changed(asset.created_at))
}

fn job(job: &Job) -> Resource {
    let pictures = match job.assets.len() {
        1 => "1 picture".to_owned(),
        number => format!("{number} pictures"),
    };
    Resource::new(Scheme::Job.uri(job.id.as_str()), job.id.as_str())
        .with_title(format!("Run, {}", job.status.as_str()))
        .with_description(format!("Of {}, {pictures}", iso(job.created_at)))
        .with_mime_type("application/json")
        .with_annotations(changed(job.updated_at))
}

fn changed(at: i64) -> Annotations {
    let mut annotations = Annotations::default();
    annotations.last_modified = Some(iso(at));
    annotations
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pages(count: i64) -> Vec<Vec<String>> {
        let all: Vec<i64> = (0..count).collect();
        let mut pages = Vec::new();
        let mut after = None;
        loop {
            let mut page = Page { after, found: Vec::new() };
            // Two of each time, so that the time alone does not place them.
            page.fill(
                all.clone(),
                |n| Place::new(Scheme::Asset, n / 2, &n.to_string()),
                |n| Resource::new(n.to_string(), ""),
            );
            let (found, next) = page.finish();
            pages.push(found.into_iter().map(|resource| resource.uri).collect());
            let Some(next) = next else { return pages };
            after = Some(Place::read(&next).unwrap());
        }
    }

    #[test]
    fn every_resource_is_on_one_page() {
        for (count, lengths) in
            [(0, vec![0]), (1, vec![1]), (100, vec![100]), (101, vec![100, 1]), (250, vec![100, 100, 50])]
        {
            let pages = pages(count);
            assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
            let mut all = pages.concat();
            all.sort();
            all.dedup();
            assert_eq!(all.len(), usize::try_from(count).unwrap());
        }
        assert_eq!(pages(4)[0], ["2", "3", "0", "1"]);
    }

    #[test]
    fn what_is_no_cursor_is_none() {
        let place = Place::new(Scheme::Asset, 7, "a/b");
        assert_eq!(Place::read(&place.cursor()), Some(place));
        for text in ["", "1", "1/7", "3/7/a", "-1/7/a", "1/x/a", "a/b/c"] {
            assert_eq!(Place::read(text), None, "{text}");
        }
    }
}
