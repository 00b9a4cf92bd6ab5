//! The language of prompts: weights in brackets, chunks of a text encoder's length, words that are vectors of their own.
//!
//! The language and its arithmetic are AUTOMATIC1111's (stable-diffusion-webui, emphasis "Original"): a prompt is parsed
//! into runs of one weight each, every run is tokenized by itself, the tokens fill chunks of as many tokens as the text
//! encoder reads, each chunk is encoded alone, its hidden states are multiplied by the weights of their tokens and the
//! chunk's mean is restored. `docs/prompts.md` has the rules, and where this differs.

mod added;
mod chunks;
mod emphasis;
mod notes;

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

pub use added::AddedWord;
pub use chunks::{Chunk, Chunks, Cut, Limit};
pub use notes::{Note, Noted};

/// A parsed prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    parts: Vec<Part>,
    notes: Vec<Note>,
}

/// A piece of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text of one weight.
    Run(Run),
    /// `BREAK`: what follows begins a new chunk.
    Break,
}

/// Text of one weight, its brackets and escapes taken away.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What is tokenized.
    pub text: String,
    /// The factor of its hidden states.
    pub weight: f64,
    /// Where the pieces of `text` come from: bytes of `text`, bytes of the prompt; the first begins at 0.
    origins: Vec<(usize, usize)>,
}

impl Prompt {
    /// Reads `text` in AUTOMATIC1111's language. Every text is a prompt.
    pub fn weighted(text: &str) -> Self {
        emphasis::parse(text)
    }

    /// Takes every character as it is written, with weight 1.
    pub fn plain(text: &str) -> Self {
        let run = Run { text: text.to_owned(), weight: 1.0, origins: vec![(0, 0)] };
        Self { parts: vec![Part::Run(run)], notes: Vec::new() }
    }

    /// The pieces in their order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What its writer may have meant otherwise, in the order of the text.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The weights of its runs.
    pub fn weights(&self) -> impl Iterator<Item = f64> {
        self.parts.iter().filter_map(|part| match part {
            Part::Run(run) => Some(run.weight),
            Part::Break => None,
        })
    }
}

impl Run {
    /// The byte of the prompt that byte `at` of `text` was written at; of an escaped character its backslash's.
    fn origin(&self, at: usize) -> usize {
        let piece = self.origins.partition_point(|&(start, _)| start <= at).saturating_sub(1);
        self.origins.get(piece).map_or(at, |&(start, from)| from + (at - start))
    }
}

/// Multiplies the hidden states of a chunk, `(1,N,D)`, by the N weights of its tokens and restores the chunk's mean.
///
/// On the host and in f32, the means summed in f64: the same bytes on every device and for any number of threads.
///
/// # Errors
/// [`Error::Prompt`] when the weighted states have no mean that could be restored.
pub fn emphasize(states: &Tensor, weights: &[f32]) -> Result<Tensor> {
    let (batch, count, width) = states.dims3()?;
    if batch != 1 || count != weights.len() {
        let message = format!("{} weights for states of shape {:?}", weights.len(), states.dims());
        return Err(Error::Tensor(candle_core::Error::Msg(message)));
    }
    let on_host = states.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let mut values = on_host.flatten_all()?.to_vec1::<f32>()?;
    let sum = |values: &[f32]| values.iter().map(|&x| f64::from(x)).sum::<f64>();
    let before = sum(&values);
    for (token, weight) in values.chunks_mut(width.max(1)).zip(weights) {
        token.iter_mut().for_each(|x| *x *= weight);
    }
    let restored = (before / sum(&values)) as f32;
    if !restored.is_finite() {
        return Err(Error::Prompt("its weights leave hidden states without a mean to restore".into()));
    }
    values.iter_mut().for_each(|x| *x *= restored);
    let weighted = Tensor::from_vec(values, (batch, count, width), &Device::Cpu)?;
    Ok(weighted.to_dtype(states.dtype())?.to_device(states.device())?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn emphasis_keeps_the_mean() {
        let states = Tensor::new(&[[[1f32, 2.0], [3.0, -1.0]]], &Device::Cpu).unwrap();
        let weighted = emphasize(&states, &[1.0, 2.0]).unwrap().flatten_all().unwrap();
        // 1 + 2 + 6 - 2 = 7 in place of 5.
        let expected: Vec<f32> = [1.0, 2.0, 6.0, -2.0].map(|x| x * (5.0 / 7.0)).to_vec();
        assert_eq!(weighted.to_vec1::<f32>().unwrap(), expected);
    }

    #[test]
    fn states_without_a_mean_are_refused() {
        let states = Tensor::new(&[[[1f32, 1.0], [1.0, 1.0]]], &Device::Cpu).unwrap();
        let error = emphasize(&states, &[1.0, -1.0]).unwrap_err().to_string();
        assert!(error.contains("without a mean"), "{error}");
        assert!(emphasize(&states, &[1.0]).is_err());
    }

    #[test]
    fn a_place_in_a_run_is_a_place_in_the_prompt() {
        let prompt = Prompt::weighted(r"a \(b\) (c)(d)");
        let [Part::Run(first), Part::Run(second)] = prompt.parts() else { unreachable!() };
        assert_eq!((first.text.as_str(), second.text.as_str()), ("a (b) ", "cd"));
        let places = |run: &Run| (0..run.text.len()).map(|at| run.origin(at)).collect::<Vec<_>>();
        assert_eq!(places(first), [0, 1, 2, 4, 5, 7]);
        assert_eq!(places(second), [9, 12]);
    }
}
