//! The noise of diffusers' `DPMSolverSDEScheduler`: increments of one Brownian path, so that the noise between two sigmas
//! doesn't depend on the number of steps.
//!
//! The path is torchsde's `BrownianInterval` as diffusers sets it up (`halfway_tree`, `tol = 1e-6`, `pool_size = 24`): a
//! binary tree of intervals, halved down to the queried points, where each inner node has a seed of its own from which
//! the increment over its left half is drawn given the increment over the whole (a Brownian bridge).
//! (torchsde/_brownian/brownian_interval.py; `BrownianTreeNoiseSampler` in
//! diffusers/schedulers/scheduling_dpmsolver_sde.py)

use std::collections::VecDeque;
use std::rc::Rc;

use super::seed_sequence::generate_state;
use super::{Generator, NoiseRule};

/// The entropy pool of each node's seed sequence.
const POOL_SIZE: usize = 24;
/// How many increments are remembered; any number gives the same values.
const REMEMBERED: usize = 48;

/// One node of the tree: an interval of the path.
struct Interval {
    start: f64,
    end: f64,
    parent: Option<usize>,
    /// The place among the nodes of the same depth, from the left.
    place: u64,
    depth: u64,
    split: Option<Split>,
}

/// What an inner node has.
#[derive(Clone, Copy)]
struct Split {
    midway: f64,
    /// Seeds the draw that decides where the path is at `midway`.
    seed: u32,
    /// The left child; the right one follows it.
    left: usize,
}

/// A Brownian path from `t0` to `t1` whose values have the shape of a latent.
pub struct BrownianTree {
    shape: Vec<usize>,
    entropy: u64,
    nodes: Vec<Interval>,
    whole: Rc<Vec<f32>>,
    recent: VecDeque<(usize, Rc<Vec<f32>>)>,
}

impl BrownianTree {
    /// The path of `BrownianTreeNoiseSampler(x, sigma_min, sigma_max, seed)` for a sample `x` of the given shape.
    pub fn new(shape: &[usize], sigma_min: f32, sigma_max: f32, seed: u64) -> Self {
        let (t0, t1) = (f64::from(sigma_min.min(sigma_max)), f64::from(sigma_min.max(sigma_max)));
        let [seed_of_whole] = generate_state(seed, &[], POOL_SIZE);
        let scale = (t1 - t0).sqrt() as f32;
        let mut whole = draw(shape, seed_of_whole);
        whole.iter_mut().for_each(|w| *w *= scale);
        let root =
            Interval { start: rounded(t0), end: rounded(t1), parent: None, place: 0, depth: 0, split: None };
        Self {
            shape: shape.to_vec(),
            entropy: seed,
            nodes: vec![root],
            whole: Rc::new(whole),
            recent: VecDeque::with_capacity(REMEMBERED),
        }
    }

    /// Standard normal noise for the step from `sigma` to `sigma_next`: the path's increment over the square root of the
    /// distance, negated as diffusers does when sigma falls. Queries beyond the path's ends are cut to them. A step of
    /// no length has no noise: NaN, as in diffusers.
    pub fn sample(&mut self, sigma: f32, sigma_next: f32) -> Vec<f32> {
        let distance = (sigma_next - sigma).abs().sqrt();
        let mut noise = self.signed_increment(sigma, sigma_next);
        noise.iter_mut().for_each(|w| *w /= distance);
        noise
    }

    /// The path's increment between two sigmas, negated if sigma falls.
    pub(super) fn signed_increment(&mut self, sigma: f32, sigma_next: f32) -> Vec<f32> {
        if sigma < sigma_next {
            return self.increment(f64::from(sigma), f64::from(sigma_next));
        }
        let mut increment = self.increment(f64::from(sigma_next), f64::from(sigma));
        increment.iter_mut().for_each(|w| *w = -*w);
        increment
    }

    /// The path's value at `to` less that at `from`, where `from <= to`.
    fn increment(&mut self, from: f64, to: f64) -> Vec<f32> {
        let (start, end) = (self.nodes[0].start, self.nodes[0].end);
        let (from, to) = (from.max(start).min(end), to.max(start).min(end));
        if from == to {
            return vec![0.0; self.shape.iter().product()];
        }
        let mut found = Vec::new();
        self.locate(0, rounded(from), rounded(to), &mut found);
        let mut sum: Option<Vec<f32>> = None;
        for node in found {
            let piece = self.value(node);
            match &mut sum {
                None => sum = Some(piece.to_vec()),
                Some(sum) => sum.iter_mut().zip(piece.iter()).for_each(|(sum, piece)| *sum += piece),
            }
        }
        sum.unwrap_or_else(|| vec![0.0; self.shape.iter().product()])
    }

    /// Collects, from left to right, the nodes below `node` that together are [`from`, `to`], halving where needed.
    fn locate(&mut self, node: usize, from: f64, to: f64, found: &mut Vec<usize>) {
        let Interval { start, end, split, .. } = self.nodes[node];
        if from >= to {
            return;
        }
        if from == start && to == end {
            found.push(node);
            return;
        }
        let Split { midway, left, .. } = match split {
            Some(split) => split,
            None => self.split(node),
        };
        // A leaf no longer than the tolerance can't be halved at a point inside it.
        if midway <= start || midway >= end {
            return;
        }
        if from < midway {
            self.locate(left, from, to.min(midway), found);
        }
        if to > midway {
            self.locate(left + 1, from.max(midway), to, found);
        }
    }

    /// Halves a leaf.
    fn split(&mut self, node: usize) -> Split {
        let Interval { start, end, place, depth, .. } = self.nodes[node];
        let midway = rounded(0.5 * (end + start));
        let [seed] = generate_state(self.entropy, &[place, depth], POOL_SIZE);
        let left = self.nodes.len();
        let split = Split { midway, seed, left };
        self.nodes[node].split = Some(split);
        let child = |start, end, place| Interval {
            start,
            end,
            parent: Some(node),
            place,
            depth: depth + 1,
            split: None,
        };
        self.nodes.push(child(start, midway, 2 * place));
        self.nodes.push(child(midway, end, 2 * place + 1));
        split
    }

    /// The path's increment over a node.
    fn value(&mut self, node: usize) -> Rc<Vec<f32>> {
        if let Some((_, value)) = self.recent.iter().find(|(known, _)| *known == node) {
            return Rc::clone(value);
        }
        let Some((parent, split)) = self.nodes[node].parent.and_then(|p| self.nodes[p].split.map(|s| (p, s)))
        else {
            return Rc::clone(&self.whole);
        };
        let whole = self.value(parent);
        let (left_length, right_length) =
            (split.midway - self.nodes[parent].start, self.nodes[parent].end - split.midway);
        let reciprocal = 1.0 / (self.nodes[parent].end - self.nodes[parent].start);
        let deviation = (left_length * right_length * reciprocal).sqrt() as f32;
        let (left_length, reciprocal) = (left_length as f32, reciprocal as f32);
        let mut value = draw(&self.shape, split.seed);
        for (value, whole) in value.iter_mut().zip(whole.iter()) {
            *value = left_length * whole * reciprocal + deviation * *value;
            if node != split.left {
                *value = whole - *value;
            }
        }
        let value = Rc::new(value);
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((node, Rc::clone(&value)));
        value
    }
}

/// Standard normal noise from a generator of its own.
fn draw(shape: &[usize], seed: u32) -> Vec<f32> {
    Generator::new(u64::from(seed)).randn(shape, NoiseRule::F32)
}

/// `t` to the tolerance, six decimal places, as Python's `round` does: exactly, ties to even.
fn rounded(t: f64) -> f64 {
    format!("{t:.6}").parse().unwrap_or(t)
}
