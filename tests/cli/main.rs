//! Drives the real executable, each test in a fresh folder of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod additions;
mod assets;
mod demo;
#[path = "../shared/folder.rs"]
mod folder;
mod harness;
mod help;
mod inpaint;
mod interrupt;
#[path = "../shared/lora.rs"]
mod lora;
mod models;
mod modes;
mod noise;
mod refusals;
mod settings;
