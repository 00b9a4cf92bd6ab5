//! What a client can look at without a call, each under a URI of its own: `asset://`, `job://`, `model://`.

mod listing;
mod reading;

use rmcp::model::{ErrorData, ResourceTemplate};
use serde_json::json;

use crate::arguments::{bounded, show_text};
use crate::percent;

pub(crate) use listing::list;
pub(crate) use reading::read;

/// The longest URI that an answer repeats whole, in bytes.
const LONGEST_URI: usize = 2048;

/// What a URI names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// A picture of the store.
    Asset,
    /// A job of the store.
    Job,
    /// A model on this machine.
    Model,
}

impl Scheme {
    pub(crate) const ALL: [Self; 3] = [Self::Asset, Self::Job, Self::Model];

    /// RFC 6570.
    pub(crate) fn template(self) -> &'static str {
        match self {
            Self::Asset => "asset://{id}",
            Self::Job => "job://{id}",
            Self::Model => "model://{id}",
        }
    }

    fn prefix(self) -> &'static str {
        self.template().trim_end_matches("{id}")
    }

    /// The URI of what has this id: the template, filled in.
    pub(crate) fn uri(self, id: &str) -> String {
        format!("{}{}", self.prefix(), percent::encode(id, ""))
    }

    /// The scheme of a URI, and the id in it.
    fn read(uri: &str) -> Option<(Self, String)> {
        let (scheme, id) = Self::ALL.into_iter().find_map(|s| Some((s, uri.strip_prefix(s.prefix())?)))?;
        Some((scheme, String::from_utf8(percent::decode(id)).ok()?))
    }
}

/// The three forms of URI.
pub(crate) fn templates() -> Vec<ResourceTemplate> {
    let template = |scheme: Scheme, name: &str, title: &str, description: &str| {
        ResourceTemplate::new(scheme.template(), name).with_title(title).with_description(description)
    };
    vec![
        template(
            Scheme::Asset,
            "asset",
            "A picture",
            "A picture that came in or was made, by its asset id: the picture itself, or a preview of a large one, and \
             its size, link, parent and recipe.",
        ),
        template(
            Scheme::Job,
            "job",
            "A run",
            "What a run was asked to do, where it stands and which pictures it made, by its job id.",
        )
        .with_mime_type("application/json"),
        template(
            Scheme::Model,
            "model",
            "A model on this machine",
            "What a modelId stands for: its kind, the sizes that it works at, its defaults, its licence and what goes \
             with it.",
        )
        .with_mime_type("application/json"),
    ]
}

/// The protocol's answer to a URI that leads nowhere; newer protocols have another code for it, which the SDK gives.
fn not_found(uri: &str, reason: &str) -> ErrorData {
    let message = format!("uri is {}; {}", show_text(uri), bounded(reason));
    // One that is endless is not sent back.
    let data = (uri.len() <= LONGEST_URI).then(|| json!({ "uri": uri }));
    ErrorData::resource_not_found(message, data)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_uri_of_an_id_is_read_back(id: String, index in 0usize..3) {
            let scheme = Scheme::ALL[index];
            prop_assert_eq!(Scheme::read(&scheme.uri(&id)), Some((scheme, id)));
        }

        #[test]
        fn any_text_is_read_or_none(text: String) {
            let _ = Scheme::read(&text);
            let _ = Scheme::read(&format!("model://{text}"));
        }
    }

    #[test]
    fn a_path_is_an_id_like_any_other() {
        assert_eq!(Scheme::Model.uri("my model/v1"), "model://my%20model%2Fv1");
        assert_eq!(Scheme::read("file:///etc/passwd"), None);
        assert_eq!(Scheme::read("model://%ff"), None);
    }
}
