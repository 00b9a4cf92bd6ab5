//! What the multistep methods remember.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::SchedulerConfig;
use crate::{Error, Result};

/// The last outputs of a run, at most as many as the method's order.
#[derive(Debug, Clone)]
pub(super) struct History {
    outputs: VecDeque<Tensor>,
    order: usize,
}

impl History {
    /// An empty history for a method of `solver_order`, 1 to `highest`.
    pub(super) fn read(config: &SchedulerConfig, highest: usize) -> Result<Self> {
        match config.count("solver_order")? {
            order if (1..=highest).contains(&order) => Ok(Self::new(order)),
            order => Err(Error::Refused {
                field: "solver_order",
                value: order.to_string(),
                allowed: format!("1 to {highest} with this algorithm"),
            }),
        }
    }

    /// An empty history for a method of `order`.
    pub(super) fn new(order: usize) -> Self {
        Self { outputs: VecDeque::with_capacity(order + 1), order }
    }

    /// Takes in the newest output and forgets the one that is too old.
    pub(super) fn push(&mut self, output: Tensor) {
        self.outputs.push_front(output);
        self.outputs.truncate(self.order);
    }

    /// The method's order.
    pub(super) fn order(&self) -> usize {
        self.order
    }

    /// How many outputs there are.
    pub(super) fn len(&self) -> usize {
        self.outputs.len()
    }

    /// The outputs, newest first.
    pub(super) fn newest_first(&self) -> Vec<&Tensor> {
        self.outputs.iter().collect()
    }
}
