//! One file per command.

pub(crate) mod assets;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod inpaint;
pub(crate) mod jobs;
pub(crate) mod models;
pub(crate) mod noise;
pub(crate) mod serve;
