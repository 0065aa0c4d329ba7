//! Which bundle to run when none is named.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::args::BundleArgs;
use crate::bundle::{Bundle, MANIFEST_FILE, Manifest, Precision};

/// How many folders above the executable's own are looked at: `target/release/` in a checkout, `bin/` when installed.
const FOLDERS_ABOVE: usize = 3;

/// A bundle that was found, as its manifest describes it.
struct Found {
    dir: PathBuf,
    name: String,
    precision: Precision,
    resolution: u32,
    /// Pixels per token: a resolution is a multiple of it. Not 0.
    patch: u32,
    text: String,
}

/// The bundle to run: `model`, or the one found that `res` asks for, or the default.
pub(super) fn choose(
    model: Option<&Path>,
    res: Option<u32>,
    models: Option<&Path>,
) -> Result<PathBuf> {
    if let Some(dir) = model {
        return Ok(dir.to_path_buf());
    }
    let places = places(models);
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for place in &places {
        (found, problems) = bundles_in(place)
            .with_context(|| format!("cannot look for bundles in {}", place.display()))?;
        if !found.is_empty() {
            break;
        }
    }
    if found.is_empty() {
        let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        let problems: String = problems.iter().map(|p| format!("; {p}")).collect();
        // Without a manifest nothing is known of the resolutions that a model takes.
        let possible = match res {
            Some(res) => format!(
                " (it says whether the model can have {res} pixels, and which are nearest if not)"
            ),
            None => String::new(),
        };
        bail!(
            "no bundle found in {}{problems}; give one with --model DIR, or make one with `snow-export`{possible}",
            looked.join(", ")
        );
    }

    let listed: Vec<&str> = found.iter().map(|bundle| bundle.text.as_str()).collect();
    let listed = listed.join(", ");
    let mut matching: Vec<&Found> = match res {
        Some(res) => found.iter().filter(|b| b.resolution == res).collect(),
        None => found.iter().collect(),
    };
    if let (Some(res), true) = (res, matching.is_empty()) {
        bail!(
            "no bundle of {res} pixels: {}; found {listed}",
            advice(res, &found)
        );
    }
    if res.is_none() && matching.len() > 1 {
        matching.retain(|bundle| {
            bundle
                .dir
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"snow-"))
        });
        let lowest = matching.iter().map(|bundle| bundle.resolution).min();
        matching.retain(|bundle| Some(bundle.resolution) == lowest);
    }
    match matching.as_slice() {
        [bundle] => Ok(bundle.dir.clone()),
        _ => match res {
            Some(res) => {
                bail!("several bundles of {res} pixels; choose one with --model DIR: {listed}")
            }
            None => bail!("several bundles; choose one with --model DIR or --res: {listed}"),
        },
    }
}

/// The bundle of the same model as that in `dir` at another resolution: beside it, or where [`choose`] looks; of several, that of
/// the same precision.
pub(super) fn sibling(
    dir: &Path,
    manifest: &Manifest,
    res: u32,
    models: Option<&Path>,
) -> Result<PathBuf> {
    let beside = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        // A name alone, or `.`.
        _ => {
            let whole = dir.canonicalize();
            let whole = whole.with_context(|| format!("cannot find {}", dir.display()))?;
            whole.parent().unwrap_or(&whole).to_path_buf()
        }
    };
    let mut others = Vec::new();
    for place in [beside].into_iter().chain(places(models)) {
        let (found, _) = bundles_in(&place)
            .with_context(|| format!("cannot look for bundles in {}", place.display()))?;
        let (mut same, rest): (Vec<Found>, Vec<Found>) = found
            .into_iter()
            .partition(|other| other.name == manifest.name && other.resolution == res);
        if same.len() > 1 {
            same.retain(|other| other.precision == manifest.precision);
        }
        match same.as_slice() {
            [one] => return Ok(one.dir.clone()),
            [] => others.extend(rest.into_iter().map(|other| other.text)),
            several => {
                let listed: Vec<&str> = several.iter().map(|other| other.text.as_str()).collect();
                bail!(
                    "several bundles of {} at {res} pixels: {}; leave one of them",
                    manifest.name,
                    listed.join(", ")
                );
            }
        }
    }
    others.sort();
    others.dedup();
    bail!(
        "no bundle of {} at {res} pixels (found {}); make one with `{} --parts tracker,detector`",
        manifest.name,
        others.join(", "),
        manifest.export_command_at(res)
    );
}

/// The bundles that are named, those in a folder that is named, or the one that [`choose`] would take if none is.
pub(super) fn all(args: &BundleArgs) -> Result<Vec<PathBuf>> {
    if args.model.is_empty() {
        return Ok(vec![choose(None, args.res, args.models.as_deref())?]);
    }
    let mut dirs = Vec::new();
    for named in &args.model {
        if named.join(MANIFEST_FILE).exists() || !named.is_dir() {
            dirs.push(named.clone());
            continue;
        }
        let mut inside = folders_in(named)
            .with_context(|| format!("cannot look for bundles in {}", named.display()))?;
        if inside.is_empty() {
            bail!(
                "{} is no bundle and holds none; give a folder that snow-export wrote, or one with such folders",
                named.display()
            );
        }
        // The order of resolutions, as far as names differ in them only.
        inside.sort_by_key(|dir| (Bundle::peek(dir).map_or(0, |m| m.resolution), dir.clone()));
        dirs.append(&mut inside);
    }
    Ok(dirs)
}

/// What to do about a resolution that no bundle has: only such advice as can be followed for some model found.
fn advice(res: u32, found: &[Found]) -> String {
    let fits = |bundle: &Found| res > 0 && res.is_multiple_of(bundle.patch);
    let Some(first) = found.first().filter(|_| !found.iter().any(fits)) else {
        return format!("make one with `snow-export --res {res}`");
    };
    let patch = first.patch;
    let below = res / patch * patch;
    let above = below.saturating_add(patch);
    let nearest = if below == 0 {
        format!("the lowest is {above}")
    } else {
        format!("the nearest are {below} and {above}")
    };
    let what = if res == 0 {
        format!("a resolution is a multiple of {patch}")
    } else {
        format!("{res} is not a multiple of {patch}")
    };
    format!("{what}; {nearest}")
}

fn places(models: Option<&Path>) -> Vec<PathBuf> {
    if let Some(models) = models {
        return vec![models.to_path_buf()];
    }
    if let Some(models) = std::env::var_os("SNOW_ORT_MODELS").filter(|value| !value.is_empty()) {
        return vec![models.into()];
    }
    let mut places = vec![PathBuf::from("models")];
    let executable = std::env::current_exe().and_then(|path| path.canonicalize());
    if let Ok(executable) = executable {
        let folders = executable.ancestors().skip(1).take(1 + FOLDERS_ABOVE);
        places.extend(folders.map(|folder| folder.join("models")));
    }
    places
}

/// The folders of the bundles in `place`, in no order. A bundle may stand in a folder of its model, beside the checkpoint.
fn folders_in(place: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for dir in entries(place)? {
        if dir.join(MANIFEST_FILE).is_file() {
            dirs.push(dir);
        } else if dir.is_dir() {
            let inner = entries(&dir).unwrap_or_default();
            dirs.extend(
                inner
                    .into_iter()
                    .filter(|d| d.join(MANIFEST_FILE).is_file()),
            );
        }
    }
    Ok(dirs)
}

/// The bundles in `place`, in name order, and what is wrong with those that cannot be read.
fn bundles_in(place: &Path) -> std::io::Result<(Vec<Found>, Vec<String>)> {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for dir in folders_in(place)? {
        match Bundle::peek(&dir) {
            Ok(manifest) => found.push(Found {
                text: format!(
                    "{} ({} px, {})",
                    dir.display(),
                    manifest.resolution,
                    manifest.precision
                ),
                name: manifest.name,
                precision: manifest.precision,
                resolution: manifest.resolution,
                patch: manifest
                    .resolution
                    .checked_div(manifest.grid)
                    .unwrap_or(1)
                    .max(1),
                dir,
            }),
            Err(error) => problems.push(error.to_string()),
        }
    }
    found.sort_by(|a, b| a.dir.cmp(&b.dir));
    Ok((found, problems))
}

/// What is in a folder; nothing if there is no such folder.
fn entries(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let found = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    found.map(|entry| entry.map(|entry| entry.path())).collect()
}
