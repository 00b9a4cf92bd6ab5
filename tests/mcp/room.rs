//! A models folder of a test's own, and the arguments that go with it.

use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::folder::copy;
use crate::harness::{Server, arguments, fixture, url};

/// A models folder of its own, with a store beside it.
pub(crate) struct Room(TempDir);

impl Room {
    /// With these of the committed models.
    pub(crate) fn new(models: &[&str]) -> Self {
        let room = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(room.models()).unwrap();
        for name in models {
            copy(&fixture("models").join(name), &room.models().join(name));
        }
        room
    }

    /// And with the committed adapters.
    pub(crate) fn with_adapters(models: &[&str]) -> Self {
        let room = Self::new(models);
        copy(&fixture("models/ip_adapter"), &room.models().join("ip-adapters"));
        room
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.0.path().join("models")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    pub(crate) fn start(&self) -> Server {
        Server::start_with_models(&self.store(), &self.models())
    }
}

/// The arguments of a run with the tiny model and one reference picture, with changes; a null takes one away.
pub(crate) fn with_reference(changes: &Value) -> Value {
    let mut all = arguments(&json!({ "ipAdapterImages": [url("images/coffee.png")] }));
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    all
}

/// A fixture as a data URL.
pub(crate) fn data_url(path: &str) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(fs::read(fixture(path)).unwrap()))
}
