//! The sets of libraries that a package can hold: the wheel of ONNX Runtime, and what it needs on a machine.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::error::PackageError;
use super::wheels::{self, Distribution};

/// A set of libraries that work together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeSet {
    /// Processors only.
    Cpu,
    /// CUDA 13: GPUs from compute capability 7.5 on.
    Cuda13,
    /// CUDA 12.8, with kernels for compute capability 7.0 (V100).
    Cuda12Sm70,
}

impl RuntimeSet {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda13, Self::Cuda12Sm70];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda13 => "cuda13",
            Self::Cuda12Sm70 => "cuda12-sm70",
        }
    }

    /// Name and version of the wheel with its library. The wheels of a set were tested together.
    pub fn wheel(self) -> (&'static str, &'static str) {
        match self {
            Self::Cpu => ("onnxruntime", "1.31.1"),
            Self::Cuda13 => ("onnxruntime-gpu", "1.31.1"),
            // The last with kernels for compute capability 7.0.
            Self::Cuda12Sm70 => ("onnxruntime-gpu", "1.26.0"),
        }
    }

    /// Names of wheels with an upper bound of their version: from 9.11 on, cuDNN for CUDA 12 has no kernels for compute
    /// capability 7.0.
    pub fn bounds(self) -> &'static [(&'static str, (u32, u32))] {
        match self {
            Self::Cpu | Self::Cuda13 => &[],
            Self::Cuda12Sm70 => &[("nvidia-cudnn-cu12", (9, 11))],
        }
    }

    /// Whether its libraries can use a GPU.
    pub fn is_cuda(self) -> bool {
        self != Self::Cpu
    }

    /// The oldest NVIDIA driver and the lowest compute capability of a GPU; `None` for processors.
    pub fn gpu(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Cpu => None,
            Self::Cuda13 => Some(("580", "7.5")),
            Self::Cuda12Sm70 => Some(("525.60.13", "7.0")),
        }
    }

    /// The wheel with its version, as pip takes it.
    pub fn requirement(self) -> String {
        let (name, version) = self.wheel();
        format!("{name}=={version}")
    }

    /// Whether a library of the wheel is packed. The others need libraries that no set has.
    pub fn takes(self, library: &str) -> bool {
        library.starts_with("libonnxruntime.so")
            || library == "libonnxruntime_providers_shared.so"
            || (self.is_cuda() && library == "libonnxruntime_providers_cuda.so")
    }

    /// The wheel of ONNX Runtime among those that are available.
    ///
    /// # Errors
    /// [`PackageError::NoWheel`] if it is missing or of another version.
    pub fn find(
        self,
        available: &BTreeMap<String, Distribution>,
        searched: &[String],
    ) -> Result<Distribution, PackageError> {
        let (name, version) = self.wheel();
        match available.get(name) {
            Some(found) if found.version == version => Ok(found.clone()),
            found => Err(PackageError::NoWheel {
                set: self.name(),
                requirement: self.requirement(),
                found: match found {
                    Some(found) => format!("found {}", found.title()),
                    None => format!("not in {}", searched.join(", ")),
                },
            }),
        }
    }

    /// The wheels with NVIDIA's libraries that `runtime` requires.
    ///
    /// # Errors
    /// [`PackageError::NoCudaWheels`] with those that are missing or too new.
    pub fn cuda(
        self,
        runtime: &Distribution,
        available: &BTreeMap<String, Distribution>,
    ) -> Result<Vec<Distribution>, PackageError> {
        let (found, missing) = wheels::required(runtime, &["cuda", "cudnn"], available);
        let mut problems: Vec<String> = missing
            .into_iter()
            .map(|name| format!("{name} is missing"))
            .collect();
        for (name, below) in self.bounds() {
            let too_new = found
                .iter()
                .filter(|d| wheels::normalized(&d.name) == *name);
            for distribution in too_new.filter(|d| release(&d.version) >= *below) {
                problems.push(format!(
                    "{} is not below {}.{}",
                    distribution.title(),
                    below.0,
                    below.1
                ));
            }
        }
        if problems.is_empty() {
            return Ok(found);
        }
        let bounds = self
            .bounds()
            .iter()
            .map(|(name, below)| format!(" '{name}<{}.{}'", below.0, below.1));
        Err(PackageError::NoCudaWheels {
            problems: problems.join(", "),
            install: format!(
                "'{}[cuda,cudnn]=={}'{}",
                self.wheel().0,
                self.wheel().1,
                bounds.collect::<String>()
            ),
        })
    }
}

/// The first two numbers of a version.
fn release(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

impl fmt::Display for RuntimeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RuntimeSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|set| set.name() == text)
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name);
                format!("expected one of {}", names.join(", "))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_everything_else_is_tested_with() {
        let lock = include_str!("../../export/requirements.lock");
        let pinned = lock
            .lines()
            .find_map(|line| line.strip_prefix("onnxruntime=="));
        assert_eq!(pinned, Some(RuntimeSet::Cpu.wheel().1));
        assert_eq!(pinned, Some(RuntimeSet::Cuda13.wheel().1));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(release("9.10.2.21") < (9, 11));
        assert!(release("9.11.0.98") >= (9, 11));
        assert!(release("10.0") >= (9, 11));
    }

    #[test]
    fn only_libraries_that_can_be_loaded_are_packed() {
        assert!(RuntimeSet::Cpu.takes("libonnxruntime.so.1.31.1"));
        assert!(!RuntimeSet::Cpu.takes("libonnxruntime_providers_cuda.so"));
        assert!(RuntimeSet::Cuda13.takes("libonnxruntime_providers_cuda.so"));
        assert!(!RuntimeSet::Cuda13.takes("libonnxruntime_providers_tensorrt.so"));
    }
}
