//! The list of resources: the models on this machine, then the pictures that are not hidden, then the jobs, each newest
//! first. It comes in pages, and a page's place does not move when something new is made.

use infill_store::{Asset, Job, Moment, iso};
use rmcp::model::{Annotations, ErrorData, Resource};
use serde_json::Value;

use super::Scheme;
use crate::arguments::{shorten, show_text};
use crate::inside::failed;
use crate::studio::Studio;

/// Resources of one page.
const PAGE: usize = 100;

/// The place of a resource in the whole list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// 0 for models, 1 for pictures, 2 for jobs.
    section: u8,
    /// Milliseconds since 1970; the newest come first.
    made: i64,
    id: String,
}

impl Place {
    fn new(scheme: Scheme, made: i64, id: &str) -> Self {
        Self { section: section(scheme), made, id: id.to_owned() }
    }

    fn cursor(&self) -> String {
        format!("{}/{}/{}", self.section, self.made, self.id)
    }

    fn read(cursor: &str) -> Option<Self> {
        let mut parts = cursor.splitn(3, '/');
        let section = parts.next()?.parse().ok().filter(|section| *section <= 2)?;
        Some(Self { section, made: parts.next()?.parse().ok()?, id: parts.next()?.to_owned() })
    }
}

fn section(scheme: Scheme) -> u8 {
    match scheme {
        Scheme::Model => 0,
        Scheme::Asset => 1,
        Scheme::Job => 2,
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
    let after = after.transpose()?;
    let mut page = Page::default();
    if let Some((after, room)) = page.opens(Scheme::Model, after.as_ref()) {
        let ids = studio.holdings.model_ids().into_iter();
        let ids = ids.filter(|id| after.is_none_or(|(_, last)| id.as_str() > last)).take(room);
        page.take(ids, |id| Place::new(Scheme::Model, 0, id), |id| model(studio, id));
    }
    if let Some((after, room)) = page.opens(Scheme::Asset, after.as_ref()) {
        let assets = studio.store.newest(after, room).map_err(|error| failed(&error))?;
        page.take(assets, |one| Place::new(Scheme::Asset, one.created_at, one.id.as_str()), asset);
    }
    if let Some((after, room)) = page.opens(Scheme::Job, after.as_ref()) {
        let jobs = studio.store.newest_jobs(after, room).map_err(|error| failed(&error))?;
        page.take(jobs, |one| Place::new(Scheme::Job, one.created_at, one.id.as_str()), job);
    }
    Ok(page.finish())
}

/// A page that is being filled, with one resource more where there is a next page.
#[derive(Default)]
struct Page {
    found: Vec<(Place, Resource)>,
}

impl Page {
    /// What the page takes of a section: behind which moment it begins, if it does not take it from the start, and how
    /// many fit. `None`: nothing.
    fn opens<'a>(&self, scheme: Scheme, after: Option<&'a Place>) -> Option<(Option<Moment<'a>>, usize)> {
        let room = (PAGE + 1).checked_sub(self.found.len()).filter(|room| *room > 0)?;
        match after {
            Some(place) if place.section > section(scheme) => None,
            Some(place) if place.section == section(scheme) => Some((Some((place.made, &place.id)), room)),
            _ => Some((None, room)),
        }
    }

    /// Takes these, in their order.
    fn take<T>(
        &mut self,
        some: impl IntoIterator<Item = T>,
        place: impl Fn(&T) -> Place,
        resource: impl Fn(&T) -> Resource,
    ) {
        self.found.extend(some.into_iter().map(|one| (place(&one), resource(&one))));
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

    /// The ids of the page behind a place, of two models and `count` pictures, two of each moment, and the next place.
    fn page(count: usize, after: Option<&Place>) -> (Vec<String>, Option<Place>) {
        let mut page = Page::default();
        for (scheme, length) in [(Scheme::Model, 2), (Scheme::Asset, count)] {
            let Some((after, room)) = page.opens(scheme, after) else { continue };
            let all =
                (0..length).map(|n| Place::new(scheme, (count as i64 - n as i64) / 2, &format!("{n:04}")));
            let behind = |place: &Place| {
                after.is_none_or(|(made, id)| place.made < made || (place.made == made && *place.id > *id))
            };
            let some: Vec<Place> = all.filter(behind).take(room).collect();
            page.take(some, Clone::clone, |place| Resource::new(place.cursor(), ""));
        }
        let (found, next) = page.finish();
        let next = next.map(|next| Place::read(&next).unwrap());
        (found.into_iter().map(|resource| resource.uri).collect(), next)
    }

    #[test]
    fn every_resource_is_on_one_page() {
        for (count, lengths) in [(0, vec![2]), (98, vec![100]), (99, vec![100, 1]), (250, vec![100, 100, 52])]
        {
            let (mut found, mut next) = page(count, None);
            let mut pages = vec![found.len()];
            while let Some(place) = next {
                let (more, after) = page(count, Some(&place));
                pages.push(more.len());
                found.extend(more);
                next = after;
            }
            assert_eq!(pages, lengths);
            found.sort();
            found.dedup();
            assert_eq!(found.len(), count + 2);
        }
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
