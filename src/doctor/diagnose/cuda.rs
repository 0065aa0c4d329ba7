//! Findings about the GPU, its driver, and the library's part for GPUs.

use super::super::facts::{Compute, CudaFacts, Facts, Gpu};
use super::super::finding::{Finding, Severity};
use super::super::gpu_code::runs_on;
use super::super::packages::{self, CUDNN_WITHOUT_OLDER, FIRST_OF_LATER, LATER, OLDER, Wheel};
use super::rules::{
    chosen_gpu, finding, install, is_before, library_version, numbers, severity_of, trial_of,
};

const CUDA: &str = "cuda";

pub(super) fn findings(facts: &Facts, findings: &mut Vec<Finding>) {
    if facts.library.path.is_none() {
        return;
    }
    let before = findings.len();
    let failed = severity_of(CUDA, facts);
    match (&facts.library.cuda, chosen_gpu(facts)) {
        (_, None) if !facts.gpus.is_empty() => findings.push(no_such_gpu(facts, failed)),
        (None, Some(gpu)) => findings.push(cpu_only(facts, Some(gpu), failed)),
        (None, None) if failed == Severity::Error => findings.push(cpu_only(facts, None, failed)),
        (cuda, None) => findings.extend(no_driver(facts, cuda.is_some())),
        (Some(cuda), Some(gpu)) => {
            // If the provider works, problems of files do not matter.
            let serves = trial_of(facts, CUDA).is_some_and(|tried| tried.serves);
            let severity = if serves { Severity::Note } else { failed };
            with_gpu(facts, cuda, gpu, severity, findings);
        }
    }
    let explained = findings[before..]
        .iter()
        .any(|finding| finding.severity >= failed);
    let trial = trial_of(facts, CUDA).filter(|tried| !tried.serves);
    if explained {
        return;
    }
    if let Some(failure) = trial.and_then(|tried| tried.failure.as_ref())
        && chosen_gpu(facts).is_some()
    {
        findings.push(finding(
            failed,
            "cuda-fails",
            format!("cuda, {}: {}", failure.during, failure.reason),
            format!("use --provider cpu, or {}", install(facts)),
        ));
    }
}

fn no_such_gpu(facts: &Facts, severity: Severity) -> Finding {
    let last = facts.gpus.iter().map(|gpu| gpu.index).max().unwrap_or(0);
    finding(
        severity,
        "no-such-gpu",
        format!(
            "--device-id {}: nvidia-smi lists GPUs 0 to {last} only",
            facts.device_id
        ),
        format!("give --device-id 0 to {last}"),
    )
}

fn cpu_only(facts: &Facts, gpu: Option<&Gpu>, severity: Severity) -> Finding {
    let path = facts
        .library
        .path
        .as_deref()
        .unwrap_or("".as_ref())
        .display();
    let effect = match gpu {
        Some(gpu) => format!("{} ({}) is idle", gpu.name, gpu.compute),
        None => "--provider cuda does not work, and nvidia-smi lists no GPU".to_owned(),
    };
    let fix = match gpu.map(|gpu| packages::wheel(gpu.compute)) {
        Some(None) => no_wheel(),
        Some(Some(_)) => format!(
            "{}; `pip uninstall onnxruntime` first, or name the other library with --ort-lib",
            install(facts)
        ),
        None => "use --provider cpu; for a GPU, install NVIDIA's driver and the library of an onnxruntime-gpu wheel \
                 (`scripts/setup --cuda`)"
            .to_owned(),
    };
    finding(
        severity,
        "cpu-only-library",
        format!(
            "ONNX Runtime {} at {path} is a library for processors, without \
             libonnxruntime_providers_cuda.so: {effect}",
            library_version(facts)
        ),
        fix,
    )
}

fn no_wheel() -> String {
    "use --provider cpu: no wheel of onnxruntime-gpu that this program can load has kernels for this GPU; ONNX Runtime \
     would have to be built for it"
        .to_owned()
}

/// The finding if no GPU is listed; `None` on a machine without one and with a library for processors.
fn no_driver(facts: &Facts, for_gpus: bool) -> Option<Finding> {
    let driver = &facts.driver;
    let failed = severity_of(CUDA, facts);
    let why = driver
        .smi_failure
        .as_deref()
        .unwrap_or("nvidia-smi lists no GPU");
    let devices = driver.pci_devices.unwrap_or(0);
    let library = match &driver.libcuda {
        Some(_) => "",
        None => ", and the loader finds no libcuda.so.1",
    };
    if devices > 0 || failed == Severity::Error {
        let there = match devices {
            0 => String::new(),
            1 => "an NVIDIA device is on the PCI bus, but ".to_owned(),
            n => format!("{n} NVIDIA devices are on the PCI bus, but "),
        };
        return Some(finding(
            failed,
            "no-driver",
            format!("{there}no GPU can be used: {why}{library}"),
            format!(
                "install NVIDIA's driver, {} or later, and load it (`modprobe nvidia`, or a restart); in a container, give it \
                 the GPUs (`docker run --gpus all`)",
                facts
                    .library
                    .cuda
                    .as_ref()
                    .and_then(|cuda| cuda.cuda_major)
                    .map_or(LATER.driver, oldest_driver)
            ),
        ));
    }
    for_gpus.then(|| {
        finding(
            Severity::Note,
            "no-gpu",
            format!(
                "ONNX Runtime {} is a library for NVIDIA GPUs, but the machine has none: {why}{library}",
                library_version(facts)
            ),
            "nothing, if the machine has no GPU: the library also works on the processor; in a container, give it the GPUs \
             (`docker run --gpus all`)"
                .to_owned(),
        )
    })
}

/// The oldest driver that works with a CUDA version.
fn oldest_driver(cuda_major: u32) -> &'static str {
    let wheel = [LATER, OLDER]
        .into_iter()
        .find(|wheel| wheel.cuda_major == cuda_major);
    wheel.map_or(LATER.driver, |wheel| wheel.driver)
}

fn with_gpu(
    facts: &Facts,
    cuda: &CudaFacts,
    gpu: &Gpu,
    severity: Severity,
    findings: &mut Vec<Finding>,
) {
    if let Some(found) = no_kernels(facts, cuda, gpu, severity) {
        // The library must be replaced, so that its other problems do not matter.
        findings.push(found);
        return;
    }
    findings.extend(old_driver(facts, cuda, gpu, severity));
    if facts.driver.libcuda.is_none() {
        findings.push(finding(
            severity,
            "no-libcuda",
            format!(
                "nvidia-smi lists {}, but the loader finds no libcuda.so.1",
                gpu.name
            ),
            "install the driver's compute libraries (on Debian and Ubuntu libcuda1 or libnvidia-compute of the driver's \
             version); in a container, start it with NVIDIA_DRIVER_CAPABILITIES=compute,utility"
                .to_owned(),
        ));
    }
    findings.extend(off_path(cuda, severity));
    findings.extend(missing(cuda, severity));
    findings.extend(new_cudnn(cuda, gpu, severity));
}

fn list(kernels: &[Compute]) -> String {
    let names: Vec<String> = kernels.iter().map(Compute::to_string).collect();
    names.join(", ")
}

fn no_kernels(facts: &Facts, cuda: &CudaFacts, gpu: &Gpu, severity: Severity) -> Option<Finding> {
    let known = !cuda.kernels.is_empty() || !cuda.portable.is_empty();
    let has = if known {
        if runs_on(&cuda.kernels, &cuda.portable, gpu.compute) {
            return None;
        }
        format!("has kernels for {} only", list(&cuda.kernels))
    } else {
        // The file does not list its kernels. CUDA 13 has none for older GPUs.
        let later = cuda
            .cuda_major
            .is_some_and(|major| major >= LATER.cuda_major)
            || facts
                .library
                .version
                .as_deref()
                .is_some_and(|version| !is_before(version, "1.27"));
        if !later || gpu.compute >= FIRST_OF_LATER {
            return None;
        }
        format!("has kernels for {FIRST_OF_LATER} and later only")
    };
    let fix = match packages::wheel(gpu.compute) {
        Some(_) => install(facts),
        None => no_wheel(),
    };
    Some(finding(
        severity,
        "no-kernels",
        format!(
            "{} is {}, but ONNX Runtime {} (CUDA {}) {has}",
            gpu.name,
            gpu.compute,
            library_version(facts),
            cuda.cuda_major
                .map_or("of unknown version".to_owned(), |major| major.to_string()),
        ),
        fix,
    ))
}

fn old_driver(facts: &Facts, cuda: &CudaFacts, gpu: &Gpu, severity: Severity) -> Option<Finding> {
    let major = cuda.cuda_major?;
    let oldest = oldest_driver(major);
    if !is_before(&gpu.driver, oldest) {
        return None;
    }
    let another = match major == LATER.cuda_major && !is_before(&gpu.driver, OLDER.driver) {
        true => format!(", or install {}: {}", OLDER.words(), OLDER.command()),
        false => String::new(),
    };
    Some(finding(
        severity,
        "driver-too-old",
        format!(
            "the driver is {}, but ONNX Runtime {} is built for CUDA {major}, which needs {oldest} or later",
            gpu.driver,
            library_version(facts)
        ),
        format!("update NVIDIA's driver to {oldest} or later{another}"),
    ))
}

fn off_path(cuda: &CudaFacts, severity: Severity) -> Option<Finding> {
    let off: Vec<_> = cuda
        .needs
        .iter()
        .filter_map(|needed| Some((needed.name.as_str(), needed.elsewhere.as_ref()?)))
        .collect();
    if off.is_empty() {
        return None;
    }
    let mut dirs: Vec<String> = Vec::new();
    for dir in off.iter().filter_map(|(_, file)| file.parent()) {
        let dir = dir.display().to_string();
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    let names: Vec<&str> = off.iter().map(|(name, _)| *name).collect();
    Some(finding(
        severity,
        "libraries-off-path",
        format!(
            "{} are installed, but not where the loader searches",
            names.join(", ")
        ),
        format!(
            "export LD_LIBRARY_PATH={}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}",
            dirs.join(":")
        ),
    ))
}

fn missing(cuda: &CudaFacts, severity: Severity) -> Option<Finding> {
    let names: Vec<&str> = cuda
        .needs
        .iter()
        // The driver's library has another finding.
        .filter(|needed| needed.name != "libcuda.so.1")
        .filter(|needed| needed.found.is_none() && needed.elsewhere.is_none())
        .map(|needed| needed.name.as_str())
        .collect();
    if names.is_empty() {
        return None;
    }
    let wheel = [LATER, OLDER]
        .into_iter()
        .find(|wheel| Some(wheel.cuda_major) == cuda.cuda_major);
    let fix = match wheel {
        Some(wheel) => format!(
            "install CUDA {} and cuDNN 9: {}; then run `snow-ort doctor` again, which says where the loader must search",
            wheel.cuda,
            Wheel::command(&wheel)
        ),
        None => "install the CUDA and the cuDNN that the library was built for".to_owned(),
    };
    Some(finding(
        severity,
        "libraries-missing",
        format!(
            "{} needs {}, which cannot be found",
            cuda.path.file_name().unwrap_or_default().to_string_lossy(),
            names.join(", ")
        ),
        fix,
    ))
}

fn new_cudnn(cuda: &CudaFacts, gpu: &Gpu, severity: Severity) -> Option<Finding> {
    let version = cuda.cudnn.as_deref()?;
    let without = numbers(version)? >= CUDNN_WITHOUT_OLDER.to_vec();
    if gpu.compute >= FIRST_OF_LATER || !without {
        return None;
    }
    Some(finding(
        severity,
        "cudnn-too-new",
        format!(
            "cuDNN is {version}, but from 9.11 on it has no kernels for {} ({})",
            gpu.compute, gpu.name
        ),
        format!(
            "`pip install 'nvidia-cudnn-cu12<9.11'`; {} work together",
            OLDER.words()
        ),
    ))
}
