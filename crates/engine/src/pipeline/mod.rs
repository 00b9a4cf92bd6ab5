//! To be written.

pub mod merge;
