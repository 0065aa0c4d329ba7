//! The GPU, its driver, and what the library has for it.

use super::super::facts::{Compute, CudaFacts, Facts, Gpu};
use super::super::packages::{self, CUDNN_WITHOUT_OLDER, FIRST_OF_LATER, LATER, OLDER, Wheel};
use super::super::{Finding, Severity};
use super::{earlier, finding, install, severity_of, tried};
use crate::doctor::elf::{Kernels, numbers};

const CUDA: &str = "cuda";

/// The GPU that graphs would run on.
pub(super) fn chosen(facts: &Facts) -> Option<&Gpu> {
    facts.gpus.iter().find(|gpu| gpu.index == facts.device_id)
}

pub(super) fn findings(facts: &Facts, findings: &mut Vec<Finding>) {
    if facts.library.path.is_none() {
        return;
    }
    let before = findings.len();
    let failed = severity_of(CUDA, facts);
    match (&facts.library.cuda, chosen(facts)) {
        (_, None) if !facts.gpus.is_empty() => findings.push(no_such_gpu(facts, failed)),
        (None, Some(gpu)) => findings.push(cpu_only(facts, Some(gpu), failed)),
        (None, None) if failed == Severity::Error => findings.push(cpu_only(facts, None, failed)),
        (cuda, None) => findings.extend(no_driver(facts, cuda.is_some())),
        (Some(cuda), Some(gpu)) => {
            // Whatever the files look like: what serves is in order.
            let serves = tried(facts, CUDA).is_some_and(|tried| tried.serves);
            let severity = if serves { Severity::Note } else { failed };
            with_gpu(facts, cuda, gpu, severity, findings);
        }
    }
    let explained = findings[before..]
        .iter()
        .any(|finding| finding.severity >= failed);
    let served = tried(facts, CUDA).filter(|tried| tried.serves);
    if explained || served.is_some() {
        return;
    }
    if let Some(failure) = tried(facts, CUDA).and_then(|tried| tried.failure.as_ref())
        && chosen(facts).is_some()
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
    let most = facts.gpus.iter().map(|gpu| gpu.index).max().unwrap_or(0);
    finding(
        severity,
        "no-such-gpu",
        format!(
            "--device-id {}: nvidia-smi lists GPUs 0 to {most} only",
            facts.device_id
        ),
        format!("give --device-id 0 to {most}"),
    )
}

fn version(facts: &Facts) -> &str {
    facts
        .library
        .version
        .as_deref()
        .unwrap_or("of unknown version")
}

fn cpu_only(facts: &Facts, gpu: Option<&Gpu>, severity: Severity) -> Finding {
    let path = facts
        .library
        .path
        .as_deref()
        .unwrap_or("".as_ref())
        .display();
    let whose = match gpu {
        Some(gpu) => format!("{} ({}) lies idle", gpu.name, gpu.compute),
        None => "--provider cuda cannot serve, and nvidia-smi shows no GPU".to_owned(),
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
            "ONNX Runtime {} at {path} is a library for the processor, without \
             libonnxruntime_providers_cuda.so: {whose}",
            version(facts)
        ),
        fix,
    )
}

fn no_wheel() -> String {
    "use --provider cpu: no wheel of onnxruntime-gpu that this program can load has kernels for this GPU; ONNX Runtime \
     would have to be built for it"
        .to_owned()
}

/// What it means that no GPU is shown; nothing for a machine without one and a library for the processor.
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
                "install NVIDIA's driver, {} or later, and load it (`modprobe nvidia`, or a restart); in a container, pass \
                 the GPUs on (`docker run --gpus all`)",
                facts
                    .library
                    .cuda
                    .as_ref()
                    .and_then(|cuda| cuda.cuda_major)
                    .map_or(LATER.driver, least_driver)
            ),
        ));
    }
    for_gpus.then(|| {
        finding(
            Severity::Note,
            "no-gpu",
            format!(
                "ONNX Runtime {} is a library for NVIDIA GPUs, but there is none: {why}{library}",
                version(facts)
            ),
            "nothing, where there is no GPU: it serves the processor as well; in a container, pass the GPUs on \
             (`docker run --gpus all`)"
                .to_owned(),
        )
    })
}

/// First version of the driver for a CUDA.
fn least_driver(cuda_major: u32) -> &'static str {
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
        // Whatever else is wrong with this library: it is to be replaced.
        findings.push(found);
        return;
    }
    findings.extend(old_driver(facts, cuda, gpu, severity));
    if facts.driver.libcuda.is_none() {
        findings.push(finding(
            severity,
            "no-libcuda",
            format!(
                "nvidia-smi shows {}, but the loader finds no libcuda.so.1",
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
        if Kernels::serve(&cuda.kernels, &cuda.portable, gpu.compute) {
            return None;
        }
        format!("has kernels for {} only", list(&cuda.kernels))
    } else {
        // The file does not tell; CUDA 13 serves nothing older.
        let later = cuda
            .cuda_major
            .is_some_and(|major| major >= LATER.cuda_major)
            || facts
                .library
                .version
                .as_deref()
                .is_some_and(|version| !earlier(version, "1.27"));
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
            version(facts),
            cuda.cuda_major
                .map_or("of unknown version".to_owned(), |major| major.to_string()),
        ),
        fix,
    ))
}

fn old_driver(facts: &Facts, cuda: &CudaFacts, gpu: &Gpu, severity: Severity) -> Option<Finding> {
    let major = cuda.cuda_major?;
    let least = least_driver(major);
    if !earlier(&gpu.driver, least) {
        return None;
    }
    let another = match major == LATER.cuda_major && !earlier(&gpu.driver, OLDER.driver) {
        true => format!(", or install {}: {}", OLDER.words(), OLDER.command()),
        false => String::new(),
    };
    Some(finding(
        severity,
        "driver-too-old",
        format!(
            "the driver is {}, but ONNX Runtime {} is built for CUDA {major}, which needs {least} or later",
            gpu.driver,
            version(facts)
        ),
        format!("update NVIDIA's driver to {least} or later{another}"),
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
            "{} are installed, but not where the loader looks",
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
        // The driver's library has a finding of its own.
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
            "install CUDA {} and cuDNN 9: {}; then run `snow-ort doctor` again, which says where the loader has to look",
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
            "`pip install 'nvidia-cudnn-cu12<9.11'`; {} go together",
            OLDER.words()
        ),
    ))
}
