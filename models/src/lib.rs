//! Which models there are, where their files lie, and what is in them.
//!
//! - [`Checkpoint::open`] opens a diffusers folder and refuses what can't be run, by name.
//! - [`catalogue::find`] opens a model by id or folder; [`catalogue::manifests`] lists the known ones.
//! - [`inspect()`] counts tensors and bytes per network; [`Checkpoint::digest`] tells one model from another.
//! - [`dialect`] takes the names that tensors once had to the present ones.
//! - [`adapter`], [`lora`] and [`embedding`] open what a run puts on top of a model: single safetensors files;
//!   [`adapters`], [`embeddings`] and [`shelf`] find them.
//! - [`embedded`] is the model that is part of the program.
//! - `hub::pull` fetches a known model; it exists only in builds with the feature `hub`.
//!
//! For texts and headers from anywhere, [`parse_model_index`], [`parse_shard_index`] and [`header::parse_header`]
//! judge bytes alone; they are total and are what is fuzzed.
//!
//! # Architecture invariant
//!
//! This crate names none of the other crates of the workspace and touches no tensor: it reads small JSON files and the
//! headers of large ones. Only the feature `hub` brings a network client into the dependency tree, and only
//! `hub::pull` uses it: running a model never opens a connection.

pub mod adapter;
pub mod adapters;
pub mod catalogue;
mod checkpoint;
pub mod dialect;
mod digest;
pub mod embedded;
pub mod embedding;
pub mod embeddings;
mod error;
pub mod header;
#[cfg(feature = "hub")]
pub mod hub;
mod inspect;
mod json;
pub mod lora;
pub mod places;
pub mod shelf;
mod tensor_file;
mod weight_files;
mod whole_file;

pub use checkpoint::{Checkpoint, Component, Family, parse_model_index};
pub use error::{Error, Result};
pub use header::TensorInfo;
pub use inspect::{Summary, inspect, summarize};
pub use weight_files::{Variant, parse_shard_index};
