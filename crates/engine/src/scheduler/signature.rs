//! The keys that each scheduler class takes, and what it assumes for those left out: the signatures of the `__init__`
//! methods in diffusers 0.42.1.

use super::SchedulerKind;

/// A default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Assumed {
    Null,
    EmptyList,
    Flag(bool),
    Number(f64),
    Word(&'static str),
}

use Assumed::{EmptyList, Flag, Null, Number, Word};

type Keys = &'static [(&'static str, Assumed)];

const COMMON: Keys =
    &[("num_train_timesteps", Number(1000.0)), ("trained_betas", Null), ("prediction_type", Word("epsilon"))];
const DDPM_BETAS: Keys =
    &[("beta_start", Number(0.0001)), ("beta_end", Number(0.02)), ("beta_schedule", Word("linear"))];
const LATENT_BETAS: Keys =
    &[("beta_start", Number(0.00085)), ("beta_end", Number(0.012)), ("beta_schedule", Word("linear"))];
const SCALED_LATENT_BETAS: Keys =
    &[("beta_start", Number(0.00085)), ("beta_end", Number(0.012)), ("beta_schedule", Word("scaled_linear"))];
const LINSPACE: Keys = &[("timestep_spacing", Word("linspace")), ("steps_offset", Number(0.0))];
const LEADING: Keys = &[("timestep_spacing", Word("leading")), ("steps_offset", Number(0.0))];
const ZERO_SNR: Keys = &[("rescale_betas_zero_snr", Flag(false))];
const SIGMAS: Keys = &[
    ("use_karras_sigmas", Flag(false)),
    ("use_exponential_sigmas", Flag(false)),
    ("use_beta_sigmas", Flag(false)),
];
const SIGMA_RANGE: Keys = &[("sigma_min", Null), ("sigma_max", Null)];
const FINAL_SIGMA: Keys = &[("final_sigmas_type", Word("zero"))];
const THRESHOLDING: Keys = &[
    ("thresholding", Flag(false)),
    ("dynamic_thresholding_ratio", Number(0.995)),
    ("sample_max_value", Number(1.0)),
];
const FLOW: Keys = &[
    ("use_flow_sigmas", Flag(false)),
    ("flow_shift", Number(1.0)),
    ("use_dynamic_shifting", Flag(false)),
    ("time_shift_type", Word("exponential")),
];
const CLIPPED: Keys = &[("clip_sample", Flag(true)), ("clip_sample_range", Number(1.0))];
const NOT_CLIPPED: Keys = &[("clip_sample", Flag(false)), ("clip_sample_range", Number(1.0))];
const SIGNAL_AT_END: Keys = &[("set_alpha_to_one", Flag(true))];
const DISTILLED: Keys = &[("original_inference_steps", Number(50.0)), ("timestep_scaling", Number(10.0))];
const DPM_SOLVER: Keys = &[
    ("solver_order", Number(2.0)),
    ("algorithm_type", Word("dpmsolver++")),
    ("solver_type", Word("midpoint")),
    ("lambda_min_clipped", Number(f64::NEG_INFINITY)),
    ("variance_type", Null),
];

/// The keys of a class, in groups.
const fn groups(kind: SchedulerKind) -> &'static [Keys] {
    match kind {
        SchedulerKind::Ddim => &[COMMON, DDPM_BETAS, LEADING, ZERO_SNR, THRESHOLDING, CLIPPED, SIGNAL_AT_END],
        SchedulerKind::Ddpm => &[
            COMMON,
            DDPM_BETAS,
            LEADING,
            ZERO_SNR,
            THRESHOLDING,
            CLIPPED,
            &[("variance_type", Word("fixed_small"))],
        ],
        SchedulerKind::DeisMultistep => &[
            COMMON,
            DDPM_BETAS,
            LINSPACE,
            SIGMAS,
            THRESHOLDING,
            FLOW,
            &[
                ("solver_order", Number(2.0)),
                ("algorithm_type", Word("deis")),
                ("solver_type", Word("logrho")),
                ("lower_order_final", Flag(true)),
            ],
        ],
        SchedulerKind::DpmSolverMultistep => &[
            COMMON,
            DDPM_BETAS,
            LINSPACE,
            ZERO_SNR,
            SIGMAS,
            FINAL_SIGMA,
            THRESHOLDING,
            FLOW,
            DPM_SOLVER,
            &[
                ("lower_order_final", Flag(true)),
                ("euler_at_final", Flag(false)),
                ("use_lu_lambdas", Flag(false)),
            ],
        ],
        SchedulerKind::DpmSolverSde => {
            &[COMMON, LATENT_BETAS, LINSPACE, SIGMAS, &[("noise_sampler_seed", Null)]]
        }
        SchedulerKind::DpmSolverSinglestep => &[
            COMMON,
            DDPM_BETAS,
            SIGMAS,
            FINAL_SIGMA,
            THRESHOLDING,
            FLOW,
            DPM_SOLVER,
            &[("lower_order_final", Flag(false))],
        ],
        SchedulerKind::EulerAncestralDiscrete => &[COMMON, DDPM_BETAS, LINSPACE, ZERO_SNR],
        SchedulerKind::EulerDiscrete => &[
            COMMON,
            DDPM_BETAS,
            LINSPACE,
            ZERO_SNR,
            SIGMAS,
            SIGMA_RANGE,
            FINAL_SIGMA,
            &[("interpolation_type", Word("linear")), ("timestep_type", Word("discrete"))],
        ],
        SchedulerKind::HeunDiscrete => &[COMMON, LATENT_BETAS, LINSPACE, SIGMAS, NOT_CLIPPED],
        SchedulerKind::Kdpm2AncestralDiscrete | SchedulerKind::Kdpm2Discrete => {
            &[COMMON, LATENT_BETAS, LINSPACE, SIGMAS]
        }
        SchedulerKind::Lcm | SchedulerKind::Tcd => &[
            COMMON,
            SCALED_LATENT_BETAS,
            LEADING,
            ZERO_SNR,
            THRESHOLDING,
            NOT_CLIPPED,
            SIGNAL_AT_END,
            DISTILLED,
        ],
        SchedulerKind::LmsDiscrete => &[COMMON, DDPM_BETAS, LINSPACE, SIGMAS],
        SchedulerKind::Pndm => &[
            COMMON,
            DDPM_BETAS,
            LEADING,
            &[("skip_prk_steps", Flag(false)), ("set_alpha_to_one", Flag(false))],
        ],
        SchedulerKind::UniPcMultistep => &[
            COMMON,
            DDPM_BETAS,
            LINSPACE,
            ZERO_SNR,
            SIGMAS,
            SIGMA_RANGE,
            FINAL_SIGMA,
            THRESHOLDING,
            FLOW,
            &[
                ("solver_order", Number(2.0)),
                ("predict_x0", Flag(true)),
                ("solver_type", Word("bh2")),
                ("lower_order_final", Flag(true)),
                ("disable_corrector", EmptyList),
                ("solver_p", Null),
                ("shift_terminal", Null),
            ],
        ],
    }
}

/// Every key that `kind` takes.
pub(super) fn keys(kind: SchedulerKind) -> impl Iterator<Item = &'static (&'static str, Assumed)> {
    groups(kind).iter().copied().flatten()
}

/// What `kind` assumes for `key`; `None` if it takes no such key.
pub(super) fn default(kind: SchedulerKind, key: &str) -> Option<Assumed> {
    keys(kind).find(|(name, _)| *name == key).map(|&(_, default)| default)
}
