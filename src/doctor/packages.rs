//! The packages on PyPI that work on each GPU.
//!
//! Architectures were read from the libraries of both wheels (`.nv_fatbin`). The CUDA versions are those that they link; the
//! driver versions are from NVIDIA's documentation.

use super::facts::Compute;

/// A wheel of ONNX Runtime for NVIDIA GPUs, and the packages that it needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wheel {
    /// Version of `onnxruntime-gpu`.
    pub version: &'static str,
    /// The CUDA version that it was built for.
    pub cuda: &'static str,
    /// The major version of that CUDA.
    pub cuda_major: u32,
    /// The oldest driver that it works with.
    pub driver: &'static str,
    /// What pip must install with it: CUDA's libraries and cuDNN.
    pub with: &'static [&'static str],
    /// The argument of `scripts/setup --cuda` that installs it.
    pub setup: &'static str,
    /// The oldest architecture that it has machine code for.
    oldest: Compute,
}

/// The wheel for sm_75 (T4) and later.
pub const LATER: Wheel = Wheel {
    version: "1.31.1",
    cuda: "13",
    cuda_major: 13,
    driver: "580",
    with: &[
        "nvidia-cublas~=13.0",
        "nvidia-cuda-nvrtc~=13.0",
        "nvidia-cuda-runtime~=13.0",
        "nvidia-curand~=10.0",
        "nvidia-cudnn-cu13~=9.0",
    ],
    setup: "13",
    oldest: Compute { major: 7, minor: 5 },
};

/// The last wheel for sm_60 (P100) to sm_72; a V100 is sm_70. cuDNN 9.11 dropped GPUs before sm_75.
pub const OLDER: Wheel = Wheel {
    version: "1.26.0",
    cuda: "12.8",
    cuda_major: 12,
    driver: "525",
    with: &[
        "nvidia-cublas-cu12==12.8.*",
        "nvidia-cuda-nvrtc-cu12==12.8.*",
        "nvidia-cuda-runtime-cu12==12.8.*",
        "nvidia-cufft-cu12==11.3.3.*",
        "nvidia-curand-cu12==10.3.9.*",
        "nvidia-cudnn-cu12<9.11",
    ],
    setup: "12",
    oldest: Compute { major: 6, minor: 0 },
};

/// The first cuDNN version without kernels for GPUs before sm_75.
pub const CUDNN_WITHOUT_OLDER: [u32; 2] = [9, 11];

/// The first architecture that works with the [`LATER`] wheel.
pub const FIRST_OF_LATER: Compute = LATER.oldest;

/// The wheel that works on a GPU; `None` if none does.
pub fn wheel(gpu: Compute) -> Option<&'static Wheel> {
    // 1.31.1 has no code that runs on sm_100 and sm_103; 1.26.0 has code that the driver translates.
    let translated = gpu.major == 10 || gpu.major == 11;
    match gpu {
        gpu if gpu < OLDER.oldest => None,
        gpu if gpu < LATER.oldest || translated => Some(&OLDER),
        _ => Some(&LATER),
    }
}

impl Wheel {
    /// The packages to install, in words: `onnxruntime-gpu 1.26.0, CUDA 12.8 and nvidia-cudnn-cu12<9.11`.
    pub fn words(&self) -> String {
        let cudnn = self.with.last().copied().unwrap_or_default();
        format!(
            "onnxruntime-gpu {}, CUDA {} and {cudnn}",
            self.version, self.cuda
        )
    }

    /// How to install it: with the project's script, or with pip.
    pub fn command(&self) -> String {
        let quoted: Vec<String> = self.with.iter().map(|name| format!("'{name}'")).collect();
        format!(
            "`scripts/setup --cuda {}` in a checkout, or `pip install onnxruntime-gpu=={} {}`",
            self.setup,
            self.version,
            quoted.join(" ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gpu_has_the_packages_with_its_kernels() {
        let version = |major, minor| wheel(Compute { major, minor }).map(|wheel| wheel.version);
        assert_eq!(version(5, 2), None);
        assert_eq!(version(6, 1), Some("1.26.0"));
        assert_eq!(version(7, 0), Some("1.26.0"));
        assert_eq!(version(7, 5), Some("1.31.1"));
        assert_eq!(version(8, 6), Some("1.31.1"));
        assert_eq!(version(9, 0), Some("1.31.1"));
        assert_eq!(version(10, 0), Some("1.26.0"));
        assert_eq!(version(12, 0), Some("1.31.1"));
    }

    #[test]
    fn the_v100s_packages_are_named_exactly() {
        assert_eq!(
            OLDER.words(),
            "onnxruntime-gpu 1.26.0, CUDA 12.8 and nvidia-cudnn-cu12<9.11"
        );
        let command = OLDER.command();
        for word in [
            "onnxruntime-gpu==1.26.0",
            "'nvidia-cudnn-cu12<9.11'",
            "--cuda 12",
        ] {
            assert!(command.contains(word), "{command}");
        }
    }
}
