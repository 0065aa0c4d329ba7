//! `snow-ort package`: the program with all that it needs, in one archive.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::args::BundleArgs;
use super::signals::Interrupt;
use super::{complain, counted, models, say};
use crate::output::{StagedFile, Unfinished, scratch};
use crate::package::{self, PackageError, Recipe, RuntimeSet, archive, elf::Elf, wheels};
use crate::size;

const HELP: &str = "\
The archive holds one folder: the program, lib/ with ONNX Runtime, FFmpeg and all that these need except glibc, models/ with \
the bundles, README.md, package.json (every file, and what the machine must have), bom.spdx.json (SPDX), SHA256SUMS, licences/. \
The same inputs give the same bytes.

A program without FFmpeg (built with --no-default-features) gives a package for folders of images, without parts under the GPL.

Exit codes: 0 done; 2 could not do it.";

/// Arguments of `snow-ort package`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct PackageArgs {
    /// A bundle to put in, or a folder of bundles (repeatable; none by default)
    #[arg(long, value_name = "DIR")]
    pub model: Vec<PathBuf>,

    /// The set of ONNX Runtime's libraries: cpu, cuda13 (GPUs from compute capability 7.5 on) or cuda12-sm70 (V100)
    #[arg(long, value_name = "cpu|cuda13|cuda12-sm70")]
    pub runtime: RuntimeSet,

    /// Also put in CUDA's and cuDNN's libraries, from the wheels that onnxruntime-gpu names
    #[arg(long)]
    pub with_cuda_libs: bool,

    /// A folder with installed wheels: of `pip install --target`, or a virtual environment (repeatable) [default: .venv here or in a folder above]
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Vec<PathBuf>,

    /// A wheel file (repeatable)
    #[arg(long, value_name = "FILE.whl")]
    pub wheel: Vec<PathBuf>,

    /// Let pip fetch the wheels, by name and version
    #[arg(long, conflicts_with_all = ["runtime_dir", "wheel"])]
    pub download: bool,

    /// FFmpeg's libraries as scripts/build-ffmpeg made them [default: those that the program finds here]
    #[arg(long, value_name = "DIR")]
    pub ffmpeg_dir: Option<PathBuf>,

    /// The program to put in, of this version [default: this one]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,

    /// The archive
    #[arg(long, value_name = "FILE.tar.zst")]
    pub out: PathBuf,

    /// Replace an archive of this name
    #[arg(long)]
    pub overwrite: bool,

    /// How hard to compress, 1 to 19
    #[arg(long, value_name = "N", default_value_t = 19, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: i32,

    /// No progress and no summary; errors only
    #[arg(long, short)]
    pub quiet: bool,
}

/// Runs the command.
pub(super) fn run(args: &PackageArgs) -> Result<()> {
    if args.with_cuda_libs && !args.runtime.is_cuda() {
        bail!(
            "--with-cuda-libs is for --runtime cuda13 or cuda12-sm70; {} has no use for CUDA's libraries",
            args.runtime
        );
    }
    let tell = |line: &str| {
        if !args.quiet {
            complain(line);
        }
    };
    let unfinished = Unfinished::default();
    let _interrupt = Interrupt::install(&unfinished)?;
    let program = program(args)?;
    let bundles = match args.model.is_empty() {
        true => Vec::new(),
        false => models::all(&BundleArgs {
            model: args.model.clone(),
            res: None,
            models: None,
        })?,
    };
    let staged = StagedFile::create(&args.out, args.overwrite, &unfinished)?;
    let unpacked = scratch(&unfinished).context("cannot make a temporary folder")?;
    let recipe = Recipe {
        program,
        runtime: args.runtime,
        distributions: distributions(args, unpacked.path(), tell)?,
        cuda: args.with_cuda_libs,
        ffmpeg: args.ffmpeg_dir.clone(),
        bundles,
    };
    let package = package::collect(&recipe, |step| {
        // Hundreds of libraries are one step to a reader.
        if !step.starts_with("lib/") {
            tell(step);
        }
    })?;

    let total: u64 = package.entries.iter().map(|(_, sum)| sum.bytes).sum();
    let (mut done, mut shown) = (0, 0);
    tell(&format!("compressing {}", size::show(total)));
    archive::write(
        &package.entries,
        &package.manifest.name,
        args.level,
        staged.path(),
        |bytes| {
            done += bytes;
            let tenth = done * 10 / total.max(1);
            if tenth > shown {
                shown = tenth;
                tell(&format!("{} of {}", size::show(done), size::show(total)));
            }
        },
    )?;
    let packed = std::fs::metadata(staged.path())
        .context("cannot read the archive again")?
        .len();
    let file = staged.commit()?;
    if args.quiet {
        return Ok(());
    }
    let manifest = &package.manifest;
    say(&format!(
        "done: {}, {}, {} unpacked",
        counted(package.entries.len() as u64, "file"),
        size::show(packed),
        size::show(total)
    ));
    say(&format!("package  {}", file.display()));
    say(&format!("folder   {}", manifest.name));
    say(&format!("runtime  {}", manifest.onnxruntime));
    let video = if manifest.video {
        "videos and folders of images"
    } else {
        "folders of images only"
    };
    say(&format!("input    {video}"));
    for bundle in &manifest.bundles {
        say(&format!("model    {}", bundle.path));
    }
    say(&format!("needs    glibc {} or later", manifest.needs.glibc));
    if let (Some(driver), Some(capability)) = (
        &manifest.needs.nvidia_driver,
        &manifest.needs.compute_capability,
    ) {
        say(&format!(
            "         for a GPU: driver {driver}, compute capability {capability}, or later"
        ));
        if !manifest.cuda_libs {
            say("         for a GPU: CUDA's libraries and cuDNN, which are not inside");
        }
    }
    Ok(())
}

/// The program to pack: another one must be of this version, whose licences and crates are known.
fn program(args: &PackageArgs) -> Result<PathBuf> {
    let Some(program) = &args.program else {
        return std::env::current_exe().context("cannot find this program's own file");
    };
    // A package for another machine could not be tried here either.
    Elf::read(program)?;
    let path = program
        .canonicalize()
        .with_context(|| format!("cannot read {}", program.display()))?;
    let output = Command::new(&path)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let expected = format!("snow-ort {}", env!("CARGO_PKG_VERSION"));
    if said != expected {
        bail!(
            "--program {} says {said:?} of itself, expected {expected:?}; build it from this version",
            program.display()
        );
    }
    Ok(path)
}

/// Folders with installed wheels; wheel files are unpacked below `scratch`.
fn distributions(args: &PackageArgs, scratch: &Path, tell: impl Fn(&str)) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for (number, wheel) in args.wheel.iter().enumerate() {
        let folder = scratch.join(format!("wheel-{number}"));
        wheels::unpack(wheel, &folder)?;
        folders.push(folder);
    }
    for dir in &args.runtime_dir {
        if !dir.is_dir() {
            bail!(
                "--runtime-dir {}: no such folder; a wheel file is given with --wheel",
                dir.display()
            );
        }
        folders.push(site_packages(dir).unwrap_or_else(|| dir.clone()));
    }
    if args.download {
        folders.push(download(args, scratch, tell)?);
    }
    if folders.is_empty() {
        let here = std::env::current_dir().context("cannot tell the current folder")?;
        let venv = here
            .ancestors()
            .map(|folder| folder.join(".venv"))
            .find_map(|venv| site_packages(&venv));
        let Some(venv) = venv else {
            bail!(
                "no .venv in {} or a folder above has Python packages; name a folder with --runtime-dir, a wheel with --wheel, or let pip fetch {} with --download",
                here.display(),
                args.runtime.requirement()
            );
        };
        folders.push(venv);
    }
    Ok(folders)
}

/// The folder of a virtual environment's packages.
fn site_packages(venv: &Path) -> Option<PathBuf> {
    let pythons = std::fs::read_dir(venv.join("lib")).ok()?.flatten();
    let mut found: Vec<PathBuf> = pythons
        .map(|entry| entry.path().join("site-packages"))
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found.pop()
}

/// Has pip fetch the wheels of the set, and unpacks them.
fn download(args: &PackageArgs, scratch: &Path, tell: impl Fn(&str)) -> Result<PathBuf> {
    let folder = scratch.join("unpacked");
    let fetched = scratch.join("wheels");
    fetch(&args.runtime.requirement(), &[], &fetched, &folder, &tell)?;
    if !args.with_cuda_libs {
        return Ok(folder);
    }
    // The wheel says which of NVIDIA's it needs; its other requirements are Python's.
    let bounds: Vec<String> = args
        .runtime
        .bounds()
        .iter()
        .map(|(name, below)| format!("{name}<{}.{}", below.0, below.1))
        .collect();
    loop {
        let available = wheels::installed(&folder)?;
        let runtime = args.runtime.find(&available, &[])?;
        let (_, missing) = wheels::required(&runtime, &["cuda", "cudnn"], &available);
        let Some(name) = missing.into_iter().next() else {
            return Ok(folder);
        };
        let stated = available.values().flat_map(|one| &one.requirements);
        let requirement = stated
            .into_iter()
            .find(|text| wheels::required_name(text) == name);
        fetch(
            requirement.map_or(&name, |text| text),
            &bounds,
            &fetched,
            &folder,
            &tell,
        )?;
    }
}

fn fetch(
    requirement: &str,
    bounds: &[String],
    fetched: &Path,
    folder: &Path,
    tell: &impl Fn(&str),
) -> Result<()> {
    tell(&format!("fetching {requirement} with pip"));
    std::fs::create_dir_all(fetched)
        .with_context(|| format!("cannot make {}", fetched.display()))?;
    let before = wheel_files(fetched)?;
    let constraints = fetched.join("constraints.txt");
    std::fs::write(&constraints, bounds.join("\n"))
        .with_context(|| format!("cannot write {}", constraints.display()))?;
    let arguments: [&OsStr; 11] = [
        "-m".as_ref(),
        "pip".as_ref(),
        "download".as_ref(),
        "--quiet".as_ref(),
        "--no-deps".as_ref(),
        "--only-binary=:all:".as_ref(),
        "--constraint".as_ref(),
        constraints.as_os_str(),
        "--dest".as_ref(),
        fetched.as_os_str(),
        requirement.as_ref(),
    ];
    let python = [".venv/bin/python", "python3", "python"]
        .into_iter()
        .find(|python| {
            Command::new(python)
                .args(["-m", "pip", "--version"])
                .output()
                .is_ok_and(|ran| ran.status.success())
        });
    let Some(python) = python else {
        return Err(PackageError::Tool {
            tool: "Python's pip",
            purpose: "fetches wheels for --download",
        }
        .into());
    };
    let output = Command::new(python)
        .args(arguments)
        .output()
        .context("cannot run pip")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "pip could not fetch {requirement}: {}",
            said.trim().lines().last().unwrap_or("it gave no reason")
        );
    }
    for wheel in wheel_files(fetched)?
        .into_iter()
        .filter(|wheel| !before.contains(wheel))
    {
        wheels::unpack(&wheel, folder)?;
    }
    Ok(())
}

fn wheel_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "whl"));
    files.sort();
    Ok(files)
}
