//! Facts of GPUs and their driver, from `nvidia-smi`.

use std::process::Command;

use super::facts::{Driver, Gpu};
use super::links::Links;

/// The argument of `nvidia-smi` that selects its columns.
const QUERY: &str = "--query-gpu=index,name,compute_cap,memory.total,driver_version,memory.used";

/// Facts of the driver and of all GPUs. `links` finds the driver's library.
pub fn facts(links: &Links) -> (Driver, Vec<Gpu>) {
    let listed = Command::new("nvidia-smi")
        .args([QUERY, "--format=csv,noheader,nounits"])
        .output();
    let listed = match listed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err("there is no nvidia-smi".to_owned())
        }
        Err(error) => Err(format!("nvidia-smi cannot be run: {error}")),
        Ok(output) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            if output.status.success() {
                parse(&text(&output.stdout))
            } else {
                // It writes errors to stdout.
                let words = [text(&output.stdout), text(&output.stderr)].join(" ");
                Err(format!("nvidia-smi failed: {}", words.trim()))
            }
        }
    };
    let (gpus, smi_failure) = match listed {
        Ok(gpus) if gpus.is_empty() => (gpus, Some("nvidia-smi lists no GPU".to_owned())),
        Ok(gpus) => (gpus, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let driver = Driver {
        pci_devices: pci_devices(),
        smi_failure,
        libcuda: links.find("libcuda.so.1"),
    };
    (driver, gpus)
}

/// Reads `nvidia-smi --format=csv,noheader,nounits` with the columns index, name, compute_cap, memory.total (MiB),
/// driver_version and, if there, memory.used (MiB).
///
/// # Errors
/// The text shows the line that is not in that format.
pub fn parse(text: &str) -> Result<Vec<Gpu>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let unknown = || format!("nvidia-smi wrote an unexpected line: {line:?}");
            let [index, name, compute, memory, driver, rest @ ..] = fields.as_slice() else {
                return Err(unknown());
            };
            let mib = |text: &str| text.parse::<u64>().ok().map(|mib| mib << 20);
            Ok(Gpu {
                index: index.parse().map_err(|_| unknown())?,
                name: (*name).to_owned(),
                compute: compute.parse().map_err(|_| unknown())?,
                memory_bytes: mib(memory).ok_or_else(unknown)?,
                used_bytes: rest.first().and_then(|used| mib(used)),
                driver: (*driver).to_owned(),
            })
        })
        .collect()
}

/// Number of NVIDIA's display devices on the PCI bus; `None` if the system does not list devices.
fn pci_devices() -> Option<usize> {
    let devices = std::fs::read_dir("/sys/bus/pci/devices").ok()?;
    let is_gpu = |dir: &std::path::Path| {
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        // Class 03 is that of display controllers. NVIDIA's audio devices, USB controllers and bridges have others.
        read("vendor").trim() == "0x10de" && read("class").starts_with("0x03")
    };
    Some(
        devices
            .flatten()
            .filter(|entry| is_gpu(&entry.path()))
            .count(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::Compute;

    #[test]
    fn lines_of_nvidia_smi_are_read() {
        let text = "0, Tesla V100-SXM2-32GB, 7.0, 32768, 550.54.15, 3\n\
                    1, NVIDIA H100 80GB HBM3, 9.0, 81559, 580.159.03, [N/A]\n\
                    2, Tesla T4, 7.5, 15360, 550.54.15\n";
        let gpus = parse(text).unwrap();
        assert_eq!(gpus.len(), 3);
        assert_eq!(gpus[0].name, "Tesla V100-SXM2-32GB");
        assert_eq!(gpus[0].compute, Compute { major: 7, minor: 0 });
        assert_eq!(gpus[0].compute.to_string(), "sm_70");
        assert_eq!(gpus[0].memory_bytes, 32 << 30);
        assert_eq!(gpus[0].used_bytes, Some(3 << 20));
        assert_eq!((gpus[1].index, gpus[1].used_bytes), (1, None));
        assert_eq!(gpus[2].driver, "550.54.15");
    }

    #[test]
    fn an_unexpected_line_is_an_error_that_shows_it() {
        for text in [
            "No devices were found",
            "0, Tesla T4, 7.5",
            "0, Tesla T4, unknown, 15360, 550.54.15",
            "x, Tesla T4, 7.5, 15360, 550.54.15",
            "0, Tesla T4, 7.5, much, 550.54.15",
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.contains(text), "{why}");
        }
        assert_eq!(parse("\n").unwrap(), []);
    }
}
