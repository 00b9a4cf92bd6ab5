//! What it means: each setting from the first place that gives it: the command line, the environment, the settings
//! file, the default. Checked here, and refused with the name it has in that place.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use infill_engine::device::{DTypeChoice, DeviceChoice};
use infill_engine::{Error, VaeTileSize};
use infill_store::Limits;

use crate::amounts;
use crate::args::HalfRule;
use crate::failure::{Failure, Result};
use crate::store_args::LimitArgs;

/// The settings file, as it is written.
#[derive(Debug, Default)]
struct SettingsFile {
    model: Option<String>,
    models: Option<String>,
    device: Option<String>,
    dtype: Option<String>,
    vae_tile_size: Option<toml::Value>,
    noise_rule: Option<String>,
    store: Option<String>,
    max_size: Option<String>,
    max_age: Option<String>,
    allow_dir: Option<Vec<String>>,
}

/// The environment and the settings file, behind the command line.
#[derive(Debug)]
pub(crate) struct Settings {
    file: SettingsFile,
    /// Where the file is; empty without one.
    path: PathBuf,
    env: fn(&str) -> Option<String>,
}

/// A value and the name of the place that gave it.
#[derive(Debug, PartialEq)]
struct Given {
    name: String,
    value: String,
}

impl SettingsFile {
    const KEYS: [&str; 10] = [
        "model",
        "models",
        "device",
        "dtype",
        "vae-tile-size",
        "noise-rule",
        "store",
        "max-size",
        "max-age",
        "allow-dir",
    ];

    /// The keys of the file at `path`, each of its type.
    fn read(mut table: toml::Table, path: &Path) -> Result<Self> {
        let place = |key: &str| format!("{key} in {}", path.display());
        if let Some(unknown) = table.keys().find(|key| !Self::KEYS.contains(&key.as_str())) {
            let keys = Self::KEYS.join(", ");
            return Err(Failure::Refused(format!("{} is no setting; allowed: {keys}", place(unknown))));
        }
        let vae_tile_size = table.remove("vae-tile-size");
        let allow_dir = table.remove("allow-dir").map(|value| {
            let allowed = "a list of folders in quotes, such as [\"~/pictures\"]";
            let refused = || Failure::value(&place("allow-dir"), &value, allowed);
            let texts = value.as_array().ok_or_else(refused)?.iter();
            texts.map(|text| text.as_str().map(str::to_owned).ok_or_else(refused)).collect::<Result<_>>()
        });
        let mut text = |key: &str| match table.remove(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Failure::value(&place(key), other, "a text in quotes")),
        };
        Ok(Self {
            model: text("model")?,
            models: text("models")?,
            device: text("device")?,
            dtype: text("dtype")?,
            vae_tile_size,
            noise_rule: text("noise-rule")?,
            store: text("store")?,
            max_size: text("max-size")?,
            max_age: text("max-age")?,
            allow_dir: allow_dir.transpose()?,
        })
    }
}

impl Settings {
    /// Reads the settings file: `$INFILL_CONFIG`, which must exist, else the user's own, which need not.
    pub(crate) fn load() -> Result<Self> {
        match variable("INFILL_CONFIG").map(PathBuf::from) {
            Some(path) => Self::read(path, variable),
            None => match config_folder().map(|folder| folder.join("infill").join("config.toml")) {
                Some(path) if path.exists() => Self::read(path, variable),
                _ => Ok(Self { file: SettingsFile::default(), path: PathBuf::new(), env: variable }),
            },
        }
    }

    fn read(path: PathBuf, env: fn(&str) -> Option<String>) -> Result<Self> {
        let refused = |reason: &dyn fmt::Display| {
            Failure::Refused(format!("the settings file {} can't be read: {reason}", path.display()))
        };
        let text = std::fs::read_to_string(&path).map_err(|e| refused(&e))?;
        // The parser's own display draws the line over several lines of text.
        let table = text.parse().map_err(|e: toml::de::Error| match e.span() {
            Some(span) => {
                let line = text.get(..span.start).unwrap_or_default().lines().count().max(1);
                refused(&format!("{} (near line {line})", e.message()))
            }
            None => refused(&e.message()),
        })?;
        let file = SettingsFile::read(table, &path)?;
        Ok(Self { file, path, env })
    }

    /// Where the networks run.
    pub(crate) fn device(&self, typed: Option<&str>) -> Result<DeviceChoice> {
        parsed(self.given("device", typed, self.file.device.as_deref()))
    }

    /// The networks' number format.
    pub(crate) fn dtype(&self, typed: Option<&str>) -> Result<DTypeChoice> {
        parsed(self.given("dtype", typed, self.file.dtype.as_deref()))
    }

    /// The side of the tiles in which large pictures go through the VAE, if they do.
    pub(crate) fn vae_tile_size(&self, typed: Option<&str>) -> Result<Option<VaeTileSize>> {
        let filed = self.file.vae_tile_size.as_ref();
        let filed = filed.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        self.given("vae-tile-size", typed, filed.as_deref()).map(read).transpose()
    }

    /// Which torch's noise is drawn in half precision.
    pub(crate) fn noise_rule(&self, typed: Option<&str>) -> Result<HalfRule> {
        let Some(Given { name, value }) = self.given("noise-rule", typed, self.file.noise_rule.as_deref())
        else {
            return Ok(HalfRule::Torch);
        };
        HalfRule::from_str(&value, false)
            .map_err(|_| Failure::value(&name, format!("\"{value}\""), "torch, torch-2.11"))
    }

    /// The model to run.
    pub(crate) fn model(&self, typed: Option<&str>) -> Option<String> {
        let given = self.given("model", typed, None);
        given.map(|given| given.value).or_else(|| {
            let named = self.file.model.as_deref()?;
            let folder = self.beside_the_file(named);
            // An id looks like a relative path.
            Some(if folder.is_dir() { folder.display().to_string() } else { named.to_owned() })
        })
    }

    /// The folder in which models are looked up by their id.
    pub(crate) fn models_dir(&self, typed: Option<&Path>) -> Result<Option<PathBuf>> {
        let Some((name, path)) = self.path("models", typed, self.file.models.as_deref()) else {
            return Ok(None);
        };
        folder(&name, path).map(Some)
    }

    /// The folder where the server keeps pictures and jobs; made if it is absent.
    pub(crate) fn store_dir(&self, typed: Option<&Path>) -> Result<PathBuf> {
        let given = self.path("store", typed, self.file.store.as_deref()).map(|(_, path)| path);
        given.or_else(|| data_folder().map(|folder| folder.join("infill"))).ok_or_else(|| {
            Failure::Refused("no folder for pictures and jobs is known; name one with --store DIR".to_owned())
        })
    }

    /// How much the store may hold; what was put within `spared` stays in any case.
    pub(crate) fn limits(&self, typed: &LimitArgs, spared: Duration) -> Result<Limits> {
        Ok(Limits {
            max_bytes: self.amount(
                "max-size",
                typed.max_size,
                self.file.max_size.as_deref(),
                amounts::size,
            )?,
            max_age: self.amount("max-age", typed.max_age, self.file.max_age.as_deref(), amounts::age)?,
            spared,
        })
    }

    /// An amount that was typed and read already, or that one of the other places gives.
    fn amount<T>(
        &self,
        key: &str,
        typed: Option<T>,
        filed: Option<&str>,
        read: fn(&str) -> std::result::Result<T, String>,
    ) -> Result<Option<T>> {
        if typed.is_some() {
            return Ok(typed);
        }
        let Some(Given { name, value }) = self.given(key, None, filed) else { return Ok(None) };
        let refused = |allowed| Failure::value(&name, format!("\"{value}\""), allowed);
        read(&value).map(Some).map_err(refused)
    }

    /// The folders whose files the server may read.
    pub(crate) fn allow_dirs(&self, typed: &[PathBuf]) -> Result<Vec<PathBuf>> {
        if !typed.is_empty() {
            return typed.iter().map(|path| folder("--allow-dir", path.clone())).collect();
        }
        let listed = self.file.allow_dir.iter().flatten();
        listed.map(|path| folder(&self.in_file("allow-dir"), self.beside_the_file(path))).collect()
    }

    /// The value of the first place that gives one.
    fn given(&self, key: &str, typed: Option<&str>, filed: Option<&str>) -> Option<Given> {
        let given = |name: String, value: &str| Given { name, value: value.to_owned() };
        let variable = variable_name(key);
        typed
            .map(|value| given(format!("--{key}"), value))
            .or_else(|| (self.env)(&variable).map(|value| given(variable, &value)))
            .or_else(|| filed.map(|value| given(self.in_file(key), value)))
    }

    /// As [`Self::given`], for paths; those of the file start at the file's folder.
    fn path(&self, key: &str, typed: Option<&Path>, filed: Option<&str>) -> Option<(String, PathBuf)> {
        let variable = variable_name(key);
        typed
            .map(|path| (format!("--{key}"), path.to_owned()))
            .or_else(|| (self.env)(&variable).map(|path| (variable, PathBuf::from(path))))
            .or_else(|| filed.map(|path| (self.in_file(key), self.beside_the_file(path))))
    }

    fn in_file(&self, key: &str) -> String {
        format!("{key} in {}", self.path.display())
    }

    fn beside_the_file(&self, path: &str) -> PathBuf {
        if let Some(rest) = path.strip_prefix("~/")
            && let Some(home) = (self.env)("HOME")
        {
            return Path::new(&home).join(rest);
        }
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }
}

/// The value as its type, or the type's default.
fn parsed<T: std::str::FromStr<Err = Error> + Default>(given: Option<Given>) -> Result<T> {
    given.map_or_else(|| Ok(T::default()), read)
}

fn read<T: std::str::FromStr<Err = Error>>(given: Given) -> Result<T> {
    let Given { name, value } = given;
    value.parse().map_err(|error| match error {
        Error::Refused { value, allowed, .. } => Failure::value(&name, value, allowed),
        other => other.into(),
    })
}

fn folder(name: &str, path: PathBuf) -> Result<PathBuf> {
    if path.is_dir() { Ok(path) } else { Err(Failure::value(name, path.display(), "a folder that exists")) }
}

/// `noise-rule` is `INFILL_NOISE_RULE`.
fn variable_name(key: &str) -> String {
    format!("INFILL_{}", key.to_uppercase().replace('-', "_"))
}

/// An environment variable; an empty one counts as absent.
fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

fn config_folder() -> Option<PathBuf> {
    let in_home = || variable("HOME").map(|home| Path::new(&home).join(".config"));
    variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(in_home)
        .or_else(|| variable("APPDATA").map(PathBuf::from))
}

fn data_folder() -> Option<PathBuf> {
    let in_home = || variable("HOME").map(|home| Path::new(&home).join(".local").join("share"));
    variable("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(in_home)
        .or_else(|| variable("LOCALAPPDATA").map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn no_env(_: &str) -> Option<String> {
        None
    }

    fn env_says_cpu(name: &str) -> Option<String> {
        (name == "INFILL_DEVICE").then(|| "cpu".to_owned())
    }

    fn settings(text: &str, env: fn(&str) -> Option<String>) -> Result<(tempfile::TempDir, Settings)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        Settings::read(path, env).map(|settings| (dir, settings))
    }

    #[test]
    fn typed_goes_before_the_environment_and_that_before_the_file() {
        let (_dir, with_env) = settings("device = \"cuda:3\"", env_says_cpu).unwrap();
        assert_eq!(with_env.device(Some("metal")).unwrap(), DeviceChoice::Metal);
        assert_eq!(with_env.device(None).unwrap(), DeviceChoice::Cpu);
        let (_dir, without) = settings("device = \"cuda:3\"", no_env).unwrap();
        assert_eq!(without.device(None).unwrap(), DeviceChoice::Cuda(3));
        assert_eq!(without.dtype(None).unwrap(), DTypeChoice::Auto);
        assert_eq!(without.vae_tile_size(None).unwrap(), None);
        let (_dir, wrong) = settings("vae-tile-size = -32", no_env).unwrap();
        let message = wrong.vae_tile_size(None).unwrap_err().sentence();
        assert!(
            message.starts_with("vae-tile-size in ") && message.contains("is \"-32\"; allowed: mult"),
            "{message}"
        );
        let (_dir, with_tiles) = settings("vae-tile-size = 512", no_env).unwrap();
        assert_eq!(with_tiles.vae_tile_size(None).unwrap().unwrap().pixels(), 512);
        assert_eq!(with_tiles.vae_tile_size(Some("1024")).unwrap().unwrap().pixels(), 1024);
    }

    #[test]
    fn a_refusal_names_the_place_of_the_value() {
        let (_dir, settings) = settings("dtype = \"f64\"", no_env).unwrap();
        let message = settings.dtype(None).unwrap_err().sentence();
        assert!(
            message.starts_with("dtype in ") && message.contains("is \"f64\"; allowed: auto, f32"),
            "{message}"
        );
        let message = settings.vae_tile_size(Some("500")).unwrap_err().sentence();
        assert_eq!(message, "--vae-tile-size is 500; allowed: multiples of 32 from 128 to 4096");
        let message = settings.dtype(Some("f8")).unwrap_err().sentence();
        assert!(message.starts_with("--dtype is \"f8\""), "{message}");
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused_by_name() {
        for (text, start, end) in [
            ("modle = \"x\"", "modle in ", "config.toml is no setting; allowed: model, models, device, "),
            ("\n\ndevice = 3", "device in ", "config.toml is 3; allowed: a text in quotes"),
            ("allow-dir = \"x\"", "allow-dir in ", "is \"x\"; allowed: a list of folders in quotes"),
            ("allow-dir = [1]", "allow-dir in ", "is [1]; allowed: a list of folders in quotes"),
            ("device", "the settings file ", "line 1"),
        ] {
            let message = settings(text, no_env).unwrap_err().sentence();
            assert!(message.starts_with(start) && message.contains(end), "{message}");
        }
    }

    #[test]
    fn amounts_come_from_every_place() {
        let none = LimitArgs { max_size: None, max_age: None };
        let (_dir, settings) = settings("max-size = \"2MB\"\nmax-age = \"soon\"", no_env).unwrap();
        let typed = LimitArgs { max_size: None, max_age: Some(Duration::from_secs(60)) };
        let limits = settings.limits(&typed, Duration::ZERO).unwrap();
        assert_eq!((limits.max_bytes, limits.max_age), (Some(2_000_000), Some(Duration::from_secs(60))));
        let message = settings.limits(&none, Duration::ZERO).unwrap_err().sentence();
        assert!(
            message.contains("max-age in ") && message.contains("is \"soon\"; allowed: a number"),
            "{message}"
        );
    }

    #[test]
    fn paths_of_the_file_start_at_the_file() {
        let (dir, settings) =
            settings("models = \"here\"\nmodel = \"here\"\nallow-dir = [\"none\"]", no_env).unwrap();
        assert!(settings.models_dir(None).is_err());
        assert_eq!(settings.model(None).unwrap(), "here");
        let here = dir.path().join("here");
        std::fs::create_dir(&here).unwrap();
        assert_eq!(settings.models_dir(None).unwrap(), Some(here.clone()));
        assert_eq!(settings.model(None).unwrap(), here.display().to_string());
        assert!(
            settings.allow_dirs(&[]).unwrap_err().sentence().contains("none; allowed: a folder that exists")
        );
        assert_eq!(settings.allow_dirs(std::slice::from_ref(&here)).unwrap(), [here]);
    }
}
