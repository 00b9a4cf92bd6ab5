//! What is in a checkpoint, told from the headers of its files alone.

use std::collections::BTreeMap;

use crate::{Checkpoint, Component, Result, header};

/// One network's weights in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The component: `unet`, `vae`, ...
    pub component: String,
    /// Its class, such as `UNet2DConditionModel`.
    pub class: String,
    /// The number of files that hold it.
    pub files: usize,
    /// The number of tensors.
    pub tensors: usize,
    /// The number of weights in all tensors.
    pub parameters: u64,
    /// Bytes in each number format, under safetensors' name for it (`F32`, `F16`, ...).
    pub bytes: BTreeMap<String, u64>,
}

impl Summary {
    /// Bytes in all formats together.
    pub fn total_bytes(&self) -> u64 {
        self.bytes.values().sum()
    }
}

/// Sums up every network of a checkpoint. Only headers are read.
///
/// # Errors
/// [`crate::Error::File`] when a weight file is damaged or cut short.
pub fn inspect(checkpoint: &Checkpoint) -> Result<Vec<Summary>> {
    checkpoint.components().map(|(name, component)| summarize(name, component)).collect()
}

/// Sums up one network. Only headers are read.
///
/// # Errors
/// [`crate::Error::File`] when a weight file is damaged or cut short.
pub fn summarize(name: &str, component: &Component) -> Result<Summary> {
    let mut summary = Summary {
        component: name.to_owned(),
        class: component.class.clone(),
        files: component.weight_files.len(),
        tensors: 0,
        parameters: 0,
        bytes: BTreeMap::new(),
    };
    for file in &component.weight_files {
        for tensor in header::read_header(file)?.into_values() {
            summary.tensors += 1;
            summary.parameters += tensor.shape.iter().map(|&n| n as u64).product::<u64>();
            *summary.bytes.entry(tensor.dtype).or_default() += tensor.bytes;
        }
    }
    Ok(summary)
}
