//! Noise levels as σ/α, the scale in which Karras et al. 2022 (arXiv 2206.00364) and k-diffusion think, and the ways to
//! space them.

use super::SchedulerConfig;
use super::arith::numpy_ln;
use super::schedule::linspace;
use crate::{Error, Result};

/// σ at every training timestep, ascending: √((1 − ᾱ) / ᾱ).
pub(super) fn training_sigmas(alphas_cumprod: &[f32]) -> Vec<f32> {
    alphas_cumprod.iter().map(|&alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
}

/// log σ at every training timestep.
pub(super) fn log_sigmas(sigmas: &[f32]) -> Vec<f32> {
    sigmas.iter().copied().map(numpy_ln).collect()
}

/// The table's value at a fractional index, on the straight line between its neighbours, and at an end beyond it.
pub(super) fn interpolate(table: &[f32], at: f64) -> f64 {
    let last = table.len().saturating_sub(1);
    let at = at.clamp(0.0, last as f64);
    let below = (at.floor() as usize).min(last.saturating_sub(1));
    let (low, high) = (value(table, below), value(table, (below + 1).min(last)));
    (high - low) * (at - below as f64) + low
}

/// The fractional training timestep whose σ is `sigma`, on straight lines in log σ; an end of the table beyond it.
pub(super) fn sigma_to_t(sigma: f64, log_sigmas: &[f32]) -> f64 {
    let log_sigma = sigma.max(1e-10).ln();
    let not_above = log_sigmas.partition_point(|&log| f64::from(log) <= log_sigma);
    let low = not_above.saturating_sub(1).min(log_sigmas.len().saturating_sub(2));
    let (below, above) = (value(log_sigmas, low), value(log_sigmas, low + 1));
    let gap = f64::from((below - above) as f32);
    let weight = ((below - log_sigma) / gap).clamp(0.0, 1.0);
    (1.0 - weight) * low as f64 + weight * (low + 1) as f64
}

/// As [`sigma_to_t`], for the σ that diffusers holds as float32 and looks up in that precision.
pub(super) fn midpoint_to_t(sigma: f32, log_sigmas: &[f32]) -> f64 {
    let log_sigma = numpy_ln(sigma.max(1e-10));
    let not_above = log_sigmas.partition_point(|&log| log <= log_sigma);
    let low = not_above.saturating_sub(1).min(log_sigmas.len().saturating_sub(2));
    let (below, above) = (log_sigmas[low], log_sigmas[low + 1]);
    let weight = ((below - log_sigma) / (below - above)).clamp(0.0, 1.0);
    f64::from((1.0 - weight) * low as f32 + weight * (low + 1) as f32)
}

fn value(table: &[f32], index: usize) -> f64 {
    table.get(index).copied().map_or(f64::NAN, f64::from)
}

/// How the σ of a run lie between the highest and the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SigmaSpacing {
    /// Where the timesteps put them.
    ByTimesteps,
    /// Even in σ^(1/7): Karras et al. 2022 (arXiv 2206.00364), equation 5.
    Karras,
    /// Even in log σ.
    Exponential,
    /// By the quantiles of the Beta(0.6, 0.6) distribution: Lee et al. 2024 (arXiv 2407.12173).
    Beta,
}

impl SigmaSpacing {
    /// From `use_karras_sigmas`, `use_exponential_sigmas` and `use_beta_sigmas`, of which only one may be set.
    pub(super) fn read(config: &SchedulerConfig) -> Result<Self> {
        let karras = config.flag("use_karras_sigmas")?;
        let exponential = config.flag("use_exponential_sigmas")?;
        let beta = config.flag("use_beta_sigmas")?;
        match (karras, exponential, beta) {
            (false, false, false) => Ok(Self::ByTimesteps),
            (true, false, false) => Ok(Self::Karras),
            (false, true, false) => Ok(Self::Exponential),
            (false, false, true) => Ok(Self::Beta),
            _ => Err(Error::Refused {
                field: "use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas",
                value: format!("{karras}, {exponential}, {beta}"),
                allowed: "at most one of them true".into(),
            }),
        }
    }

    /// `count` descending σ between `highest` and `lowest`; `None` where the timesteps say.
    pub(super) fn between(self, highest: f64, lowest: f64, count: usize) -> Option<Vec<f64>> {
        match self {
            Self::ByTimesteps => None,
            Self::Karras => Some(karras(highest, lowest, count)),
            Self::Exponential => {
                Some(linspace(highest.ln(), lowest.ln(), count).into_iter().map(f64::exp).collect())
            }
            Self::Beta => Some(
                linspace(0.0, 1.0, count)
                    .into_iter()
                    .map(|share| lowest + beta_quantile(1.0 - share) * (highest - lowest))
                    .collect(),
            ),
        }
    }
}

fn karras(highest: f64, lowest: f64, count: usize) -> Vec<f64> {
    const RHO: f64 = 7.0;
    let (highest, lowest) = (highest.powf(1.0 / RHO), lowest.powf(1.0 / RHO));
    let root = |share: f64| highest + share * (lowest - highest);
    linspace(0.0, 1.0, count).into_iter().map(|share| root(share).powf(RHO)).collect()
}

/// The quantile function of the Beta(a, a) distribution at a = 0.6, for p in 0 to 1.
///
/// The distribution is symmetric, so x ≤ ½ is enough. There ∫₀ˣ (s(1 − s))^(a−1) ds is x^a times a power series, which
/// in y = x^a is almost a straight line, and convex: Newton's method comes down to the root from the start.
fn beta_quantile(p: f64) -> f64 {
    const A: f64 = 0.6;
    if p > 0.5 {
        return 1.0 - beta_quantile(1.0 - p);
    }
    if p <= 0.0 {
        return 0.0;
    }
    let integral = |y: f64| {
        let x = y.powf(1.0 / A);
        let (mut term, mut sum) = (1.0, 1.0 / A);
        for n in 1..64 {
            let n = f64::from(n);
            term *= x * (n - A) / n;
            sum += term / (A + n);
        }
        y * sum
    };
    // The whole integral is twice that of the lower half.
    let target = p * 2.0 * integral(0.5f64.powf(A));
    let mut y = target * A;
    for _ in 0..32 {
        let slope = (1.0 - y.powf(1.0 / A)).powf(A - 1.0) / A;
        let change = (integral(y) - target) / slope;
        y -= change;
        if change.abs() <= 1e-16 * y {
            break;
        }
    }
    y.powf(1.0 / A)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against `scipy.stats.beta.ppf(p, 0.6, 0.6)`.
    #[test]
    fn beta_quantiles_are_scipys() {
        for (p, expected) in BETA_QUANTILES {
            let got = beta_quantile(p);
            assert!((got - expected).abs() <= 4e-15 * expected, "p = {p}: {got} against {expected}");
        }
    }

    #[test]
    fn sigma_to_t_inverts_the_table() {
        let sigmas: Vec<f32> = (1..=50).map(|i| i as f32 * 0.3).collect();
        let logs = log_sigmas(&sigmas);
        for (t, &sigma) in sigmas.iter().enumerate() {
            assert!((sigma_to_t(f64::from(sigma), &logs) - t as f64).abs() < 1e-4);
        }
        assert_eq!(sigma_to_t(1e-3, &logs), 0.0);
        assert_eq!(sigma_to_t(1e3, &logs), 49.0);
    }

    const BETA_QUANTILES: [(f64, f64); 12] = [
        (0.0, 0.0),
        (1e-09, 1.85588246249141e-15),
        (0.001, 1.855873851745199e-05),
        (0.034482758620689655, 0.006768365908747951),
        (0.1, 0.03958440558878085),
        (0.25, 0.17568037865269498),
        (0.3333333333333333, 0.2754132907776234),
        (0.5, 0.5000000000000001),
        (0.7, 0.7659829961247643),
        (0.9, 0.9604155944112192),
        (0.99, 0.9991387611784571),
        (1.0, 1.0),
    ];
}
