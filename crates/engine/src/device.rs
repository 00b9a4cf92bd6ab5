//! Which device and which number format a pipeline runs with.

use std::fmt;
use std::str::FromStr;

use infill_networks::{DType, Device};

use crate::{Error, Result};

/// A device as the user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeviceChoice {
    /// The first CUDA or Metal device of this build, else the CPU.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
    /// The default Metal device.
    Metal,
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error::Refused {
            field: "device",
            value: format!("\"{text}\""),
            allowed: "auto, cpu, cuda, cuda:N, metal".into(),
        };
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "metal" => Ok(Self::Metal),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or_else(refused)?;
                number.parse().map(Self::Cuda).map_err(|_| refused())
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// # Errors
    /// A device that this build or this machine does not have.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto if infill_networks::cuda_is_built() => Self::Cuda(0).open_or_cpu(),
            Self::Auto if infill_networks::metal_is_built() => Self::Metal.open_or_cpu(),
            Self::Auto => Ok(Device::Cpu),
            Self::Cuda(_) if !infill_networks::cuda_is_built() => {
                Err(self.refused("this build has no CUDA, only one with the feature `cuda` has"))
            }
            Self::Metal if !infill_networks::metal_is_built() => {
                Err(self.refused("this build has no Metal, only one with the feature `metal` has"))
            }
            Self::Cuda(n) => infill_networks::cuda_device(n).map_err(|e| self.refused(&e.to_string())),
            Self::Metal => Device::new_metal(0).map_err(|e| self.refused(&e.to_string())),
        }
    }

    /// The device, or the processor on a machine that does not have it.
    fn open_or_cpu(self) -> Result<Device> {
        self.open().or_else(|_| Self::Cpu.open())
    }

    fn refused(self, reason: &str) -> Error {
        let first = reason.lines().next().unwrap_or("unknown reason").trim();
        Error::Refused {
            field: "device",
            value: format!("{self} ({first})"),
            allowed: "a device that this build and this machine have, or cpu".into(),
        }
    }
}

/// A number format as the user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DTypeChoice {
    /// f32 on the CPU, f16 on CUDA and Metal.
    #[default]
    Auto,
    /// 32 bits: the reference.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl FromStr for DTypeChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            _ => Err(Error::Refused {
                field: "dtype",
                value: format!("\"{text}\""),
                allowed: "auto, f32, f16, bf16".into(),
            }),
        }
    }
}

impl fmt::Display for DTypeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

impl DTypeChoice {
    /// The format on this device.
    pub fn on(self, device: &Device) -> DType {
        match self {
            Self::Auto if matches!(device, Device::Cpu) => DType::F32,
            Self::Auto | Self::F16 => DType::F16,
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// The device's name as the reports give it: `cpu`, `cuda` or `metal`.
pub fn device_name(device: &Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
        Device::Metal(_) => "metal",
    }
}

/// The format's name as the reports give it.
pub fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        _ => "f32",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["auto", "cpu", "cuda:0", "cuda:3", "metal"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        for name in ["auto", "f32", "f16", "bf16"] {
            assert_eq!(name.parse::<DTypeChoice>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_allowed_ones() {
        for name in ["gpu", "cuda:", "cuda:x", "cuda:-1"] {
            let message = name.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("cuda:N"), "{message}");
        }
        assert!("f64".parse::<DTypeChoice>().unwrap_err().to_string().contains("bf16"));
    }

    #[test]
    fn a_device_that_is_built_in_and_not_there_is_passed_over() {
        // No machine has as many cards, and a build without them has none.
        assert!(DeviceChoice::Cuda(1 << 20).open().is_err());
        assert!(matches!(DeviceChoice::Cuda(1 << 20).open_or_cpu(), Ok(Device::Cpu)));
    }

    #[test]
    fn a_device_that_is_not_built_in_is_a_sentence() {
        if !infill_networks::cuda_is_built() {
            let message = DeviceChoice::Cuda(0).open().unwrap_err().to_string();
            assert!(message.starts_with("device is cuda:0") && !message.contains('\n'), "{message}");
        }
    }
}
