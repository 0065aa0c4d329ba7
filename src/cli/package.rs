//! `snow-ort package`: packs the program with all that it needs into one archive.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;

use super::signals::Interrupt;
use super::{complain, say};
use crate::bundle::locate;
use crate::output::{StagedFile, Unfinished, scratch};
use crate::package::sources::{self, WheelSources};
use crate::package::{self, PackageError, Recipe, RuntimeSet, archive, summary};
use crate::size;

const HELP: &str = "\
The archive holds one folder: the program, lib/ with ONNX Runtime, FFmpeg and all that these need except glibc, models/ with \
the bundles, README.md, package.json (all files, and what the machine must have), bom.spdx.json (SPDX), SHA256SUMS, licences/. \
The same inputs give the same bytes.

A program without FFmpeg (built with --no-default-features) gives a package for folders of images, without parts under the GPL.

Exit codes: 0 done; 2 failed.";

/// Arguments of `snow-ort package`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct PackageArgs {
    /// A bundle to pack, or a folder of bundles (repeatable; none by default)
    #[arg(long, value_name = "DIR")]
    pub model: Vec<PathBuf>,

    /// The set of ONNX Runtime's libraries: cpu, cuda13 (GPUs from compute capability 7.5 on) or cuda12-sm70 (V100)
    #[arg(long, value_name = "cpu|cuda13|cuda12-sm70")]
    pub runtime: RuntimeSet,

    /// Also pack the libraries of CUDA and cuDNN, from the wheels that onnxruntime-gpu requires
    #[arg(long)]
    pub with_cuda_libs: bool,

    /// A folder with installed wheels: of `pip install --target`, or a virtual environment (repeatable) [default: .venv here or in a folder above]
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Vec<PathBuf>,

    /// A wheel file (repeatable)
    #[arg(long, value_name = "FILE.whl")]
    pub wheel: Vec<PathBuf>,

    /// Fetch the wheels with pip
    #[arg(long, conflicts_with_all = ["runtime_dir", "wheel"])]
    pub download: bool,

    /// The folder with FFmpeg's libraries that scripts/build-ffmpeg made [default: the system's libraries]
    #[arg(long, value_name = "DIR")]
    pub ffmpeg_dir: Option<PathBuf>,

    /// The program to pack, of this version [default: this one]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,

    /// The archive to write
    #[arg(long, value_name = "FILE.tar.zst")]
    pub out: PathBuf,

    /// Replace an existing archive
    #[arg(long)]
    pub overwrite: bool,

    /// Compression level, 1 to 19
    #[arg(long, value_name = "N", default_value_t = 19, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: i32,

    /// No progress and no summary; errors only
    #[arg(long, short)]
    pub quiet: bool,
}

/// Runs the command.
pub(super) fn run(args: &PackageArgs) -> Result<()> {
    check(args)?;
    let tell = |line: &str| {
        if !args.quiet {
            complain(line);
        }
    };
    let unfinished = Unfinished::default();
    let _interrupt = Interrupt::install(&unfinished)?;
    let program = sources::program(args.program.as_deref()).map_err(with_hint)?;
    let bundles = match args.model.is_empty() {
        true => Vec::new(),
        false => locate::all(&args.model)?,
    };
    let staged = StagedFile::create(&args.out, args.overwrite, &unfinished)?;
    let unpacked = scratch(&unfinished).context("cannot create a temporary folder")?;
    let wheels = WheelSources {
        files: args.wheel.clone(),
        folders: args.runtime_dir.clone(),
        download: args.download,
    };
    let cuda = args.with_cuda_libs;
    let folder = unpacked.path();
    let recipe = Recipe {
        program,
        runtime: args.runtime,
        distributions: sources::distributions(&wheels, args.runtime, cuda, folder, &tell)
            .map_err(with_hint)?,
        cuda,
        ffmpeg: args.ffmpeg_dir.clone(),
        bundles,
    };
    let package = package::collect(&recipe, |step| {
        // There are hundreds of libraries, so they are not shown one by one.
        if !step.starts_with("lib/") {
            tell(step);
        }
    })
    .map_err(with_hint)?;

    let total = summary::unpacked_bytes(&package);
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
        .context("cannot read the archive")?
        .len();
    let file = staged.commit()?;
    if !args.quiet {
        for line in summary::lines(&package, &file, packed) {
            say(&line);
        }
    }
    Ok(())
}

/// Checks arguments against each other.
fn check(args: &PackageArgs) -> Result<()> {
    if args.with_cuda_libs && !args.runtime.is_cuda() {
        bail!(
            "--with-cuda-libs is for --runtime cuda13 or cuda12-sm70; {} does not use CUDA's libraries",
            args.runtime
        );
    }
    if let Some(dir) = args.runtime_dir.iter().find(|dir| !dir.is_dir()) {
        bail!(
            "--runtime-dir {}: no such folder; give a wheel file with --wheel",
            dir.display()
        );
    }
    Ok(())
}

/// Adds the arguments that help to an error.
fn with_hint(error: PackageError) -> anyhow::Error {
    let hint = match &error {
        PackageError::NoVenv { requirement, .. } => format!(
            "name a folder with --runtime-dir, a wheel with --wheel, or let pip fetch {requirement} with --download"
        ),
        PackageError::NoWheel { requirement, .. } => format!(
            "install it in a folder with `pip install --no-deps --target DIR {requirement}` and give --runtime-dir DIR, give its \
             wheel with --wheel, or let pip fetch it with --download"
        ),
        PackageError::NoCudaWheels { install, .. } => format!(
            "install them in a folder with `pip install --target DIR {install}` and give --runtime-dir DIR, or let pip fetch \
             them with --download"
        ),
        PackageError::NoLicence { .. } => {
            "for FFmpeg, use scripts/build-ffmpeg and --ffmpeg-dir".to_owned()
        }
        _ => return error.into(),
    };
    anyhow!("{error}; {hint}")
}
