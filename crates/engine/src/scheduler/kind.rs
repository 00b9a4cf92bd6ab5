//! Which schedulers there are.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// A scheduler, by diffusers' class name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// `DDIMScheduler`
    Ddim,
    /// `DDPMScheduler`
    Ddpm,
    /// `DEISMultistepScheduler`
    DeisMultistep,
    /// `DPMSolverMultistepScheduler`
    DpmSolverMultistep,
    /// `DPMSolverSDEScheduler`
    DpmSolverSde,
    /// `DPMSolverSinglestepScheduler`
    DpmSolverSinglestep,
    /// `EulerAncestralDiscreteScheduler`
    EulerAncestralDiscrete,
    /// `EulerDiscreteScheduler`
    EulerDiscrete,
    /// `HeunDiscreteScheduler`
    HeunDiscrete,
    /// `KDPM2AncestralDiscreteScheduler`
    Kdpm2AncestralDiscrete,
    /// `KDPM2DiscreteScheduler`
    Kdpm2Discrete,
    /// `LCMScheduler`
    Lcm,
    /// `LMSDiscreteScheduler`
    LmsDiscrete,
    /// `PNDMScheduler`
    Pndm,
    /// `TCDScheduler`
    Tcd,
    /// `UniPCMultistepScheduler`
    UniPcMultistep,
}

impl SchedulerKind {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 16] = [
        Self::Ddim,
        Self::Ddpm,
        Self::DeisMultistep,
        Self::DpmSolverMultistep,
        Self::DpmSolverSde,
        Self::DpmSolverSinglestep,
        Self::EulerAncestralDiscrete,
        Self::EulerDiscrete,
        Self::HeunDiscrete,
        Self::Kdpm2AncestralDiscrete,
        Self::Kdpm2Discrete,
        Self::Lcm,
        Self::LmsDiscrete,
        Self::Pndm,
        Self::Tcd,
        Self::UniPcMultistep,
    ];

    /// diffusers' class name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ddim => "DDIMScheduler",
            Self::Ddpm => "DDPMScheduler",
            Self::DeisMultistep => "DEISMultistepScheduler",
            Self::DpmSolverMultistep => "DPMSolverMultistepScheduler",
            Self::DpmSolverSde => "DPMSolverSDEScheduler",
            Self::DpmSolverSinglestep => "DPMSolverSinglestepScheduler",
            Self::EulerAncestralDiscrete => "EulerAncestralDiscreteScheduler",
            Self::EulerDiscrete => "EulerDiscreteScheduler",
            Self::HeunDiscrete => "HeunDiscreteScheduler",
            Self::Kdpm2AncestralDiscrete => "KDPM2AncestralDiscreteScheduler",
            Self::Kdpm2Discrete => "KDPM2DiscreteScheduler",
            Self::Lcm => "LCMScheduler",
            Self::LmsDiscrete => "LMSDiscreteScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::Tcd => "TCDScheduler",
            Self::UniPcMultistep => "UniPCMultistepScheduler",
        }
    }

    /// Whether `timestep_spacing` says where its steps lie. diffusers' other classes place them by rules of their own,
    /// whatever their configuration says.
    pub const fn spaces_timesteps(self) -> bool {
        !matches!(self, Self::DpmSolverSinglestep | Self::Lcm | Self::Tcd)
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SchedulerKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| Error::Refused {
            field: "scheduler",
            value: format!("\"{name}\""),
            allowed: Self::ALL.map(Self::name).join(", "),
        })
    }
}
