//! Completion: the ids that an argument of a prompt or of a resource's URI can have.

use rmcp::model::{CompleteRequestParams, CompletionInfo, ErrorData, Reference};

use crate::arguments::show_text;
use crate::inside::failed;
use crate::prompts::{Recipe, Takes};
use crate::resources::Scheme;
use crate::studio::Studio;

/// The values that begin with what was typed, then those that hold it; at most as many as the protocol allows.
///
/// # Errors
/// A prompt or a URI that is not there, or an argument that it does not have; a store that refuses.
pub(crate) fn complete(studio: &Studio, asked: &CompleteRequestParams) -> Result<CompletionInfo, ErrorData> {
    let name = asked.argument.name.as_str();
    let all = match &asked.r#ref {
        Reference::Prompt(prompt) => {
            let arguments = Recipe::named(&prompt.name)?.arguments();
            let argument = arguments.iter().find(|argument| argument.name == name);
            let names = || arguments.iter().map(|argument| argument.name).collect::<Vec<_>>().join(", ");
            match argument.ok_or_else(|| unknown(name, &names()))?.takes {
                Takes::Picture => assets(studio)?,
                Takes::Model => studio.holdings.model_ids(),
                Takes::Choice(allowed) => allowed.iter().map(|&one| one.to_owned()).collect(),
                Takes::Text => Vec::new(),
            }
        }
        Reference::Resource(resource) => {
            let scheme = Scheme::ALL.into_iter().find(|scheme| scheme.template() == resource.uri);
            let scheme = scheme.ok_or_else(|| {
                let forms = Scheme::ALL.map(Scheme::template).join(", ");
                let message = format!("ref.uri is {}; allowed: {forms}", show_text(&resource.uri));
                ErrorData::invalid_params(message, None)
            })?;
            if name != "id" {
                return Err(unknown(name, "id"));
            }
            match scheme {
                Scheme::Asset => assets(studio)?,
                Scheme::Job => jobs(studio)?,
                Scheme::Model => studio.holdings.model_ids(),
            }
        }
        _ => Vec::new(),
    };
    Ok(matching(all, &asked.argument.value))
}

fn unknown(name: &str, allowed: &str) -> ErrorData {
    let message = format!("argument.name is {}; allowed: {allowed}", show_text(name));
    ErrorData::invalid_params(message, None)
}

/// The ids of all pictures that are not hidden, newest first.
fn assets(studio: &Studio) -> Result<Vec<String>, ErrorData> {
    let assets = studio.store.list(false).map_err(|error| failed(&error))?;
    Ok(assets.iter().rev().map(|asset| asset.id.to_string()).collect())
}

/// The ids of all jobs, newest first.
fn jobs(studio: &Studio) -> Result<Vec<String>, ErrorData> {
    let jobs = studio.store.job_ids().map_err(|error| failed(&error))?;
    Ok(jobs.iter().rev().map(ToString::to_string).collect())
}

fn matching(mut all: Vec<String>, typed: &str) -> CompletionInfo {
    let typed = typed.to_lowercase();
    let place = |value: &String| value.to_lowercase().find(&typed);
    all.retain(|value| place(value).is_some());
    // Stable: within each group the order stays.
    all.sort_by_key(|value| place(value) != Some(0));
    let total = all.len();
    all.truncate(CompletionInfo::MAX_VALUES);
    let mut info = CompletionInfo::default();
    info.has_more = Some(all.len() < total);
    info.total = u32::try_from(total).ok();
    info.values = all;
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(all: &[&str], typed: &str) -> Vec<String> {
        matching(all.iter().map(|&one| one.to_owned()).collect(), typed).values
    }

    #[test]
    fn what_begins_so_comes_before_what_holds_it() {
        let all = ["tiny-sd15", "sdxl-base", "sd15"];
        assert_eq!(values(&all, "SD"), ["sdxl-base", "sd15", "tiny-sd15"]);
        assert_eq!(values(&all, ""), all);
        assert!(values(&all, "flux").is_empty());
    }

    #[test]
    fn no_more_values_than_the_protocol_allows() {
        let all = (0..250).map(|n| format!("id{n}")).collect();
        let info = matching(all, "id");
        assert_eq!((info.values.len(), info.total, info.has_more), (100, Some(250), Some(true)));
    }
}
