//! Where bundles are found: by folder, by resolution, or next to another bundle of the same model.

use std::path::{Path, PathBuf};

use super::{Bundle, MANIFEST_FILE, Manifest, Precision};

/// Why no bundle can be chosen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LocateError {
    /// No folder holds a bundle.
    #[error(
        "no bundle found in {}{}",
        shown(places),
        problems.iter().map(|problem| format!("; {problem}")).collect::<String>()
    )]
    None {
        /// The folders, in the order in which they were searched.
        places: Vec<PathBuf>,
        /// What is wrong with folders that look like bundles.
        problems: Vec<String>,
        /// The resolution in pixels that was asked for.
        resolution: Option<u32>,
    },
    /// No bundle has the resolution.
    #[error("no bundle of {resolution} pixels: {advice}; found {}", found.join(", "))]
    NoResolution {
        /// The resolution in pixels.
        resolution: u32,
        /// How to get one, or the nearest resolutions that are possible.
        advice: String,
        /// The bundles that there are.
        found: Vec<String>,
    },
    /// Several bundles would do.
    #[error(
        "several bundles{}: {}",
        resolution.map_or(String::new(), |resolution| format!(" of {resolution} pixels")),
        found.join(", ")
    )]
    Several {
        /// The resolution in pixels, if one was asked for.
        resolution: Option<u32>,
        /// These bundles.
        found: Vec<String>,
    },
    /// The model has no bundle of the resolution.
    #[error("no bundle of {name} at {resolution} pixels (found {}); make one with `{remedy}`", found.join(", "))]
    NoSibling {
        /// The model.
        name: String,
        /// The resolution in pixels.
        resolution: u32,
        /// The bundles that there are.
        found: Vec<String>,
        /// A command that makes one.
        remedy: String,
    },
    /// The model has several bundles of the resolution.
    #[error(
        "several bundles of {name} at {resolution} pixels: {}; leave one of them",
        found.join(", ")
    )]
    SeveralSiblings {
        /// The model.
        name: String,
        /// The resolution in pixels.
        resolution: u32,
        /// These bundles.
        found: Vec<String>,
    },
    /// A named folder is no bundle and holds none.
    #[error(
        "{} is no bundle and holds none; give a folder that snow-export wrote, or one with such folders",
        dir.display()
    )]
    NotABundle {
        /// The folder.
        dir: PathBuf,
    },
    /// A folder cannot be read.
    #[error("cannot look for bundles in {}", dir.display())]
    Read {
        /// The folder.
        dir: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

fn shown(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

fn unreadable(dir: &Path) -> impl FnOnce(std::io::Error) -> LocateError {
    let dir = dir.to_path_buf();
    move |source| LocateError::Read { dir, source }
}

/// How many folders above the executable's own are searched: `target/release/` in a checkout, `bin/` when installed.
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

/// The bundle to run: `model`, or the one found that `resolution` (in pixels) asks for, or the default. `models` is the
/// folder to search; without, the usual ones are.
///
/// # Errors
/// [`LocateError`].
pub(crate) fn choose(
    model: Option<&Path>,
    resolution: Option<u32>,
    models: Option<&Path>,
) -> Result<PathBuf, LocateError> {
    if let Some(dir) = model {
        return Ok(dir.to_path_buf());
    }
    let places = places(models);
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for place in &places {
        (found, problems) = bundles_in(place).map_err(unreadable(place))?;
        if !found.is_empty() {
            break;
        }
    }
    if found.is_empty() {
        return Err(LocateError::None {
            places,
            problems,
            resolution,
        });
    }
    let texts = |bundles: &[&Found]| bundles.iter().map(|bundle| bundle.text.clone()).collect();
    let all: Vec<&Found> = found.iter().collect();
    let mut matching: Vec<&Found> = match resolution {
        Some(resolution) => found
            .iter()
            .filter(|b| b.resolution == resolution)
            .collect(),
        None => all.clone(),
    };
    if let (Some(resolution), true) = (resolution, matching.is_empty()) {
        return Err(LocateError::NoResolution {
            resolution,
            advice: advice(resolution, &found),
            found: texts(&all),
        });
    }
    if resolution.is_none() && matching.len() > 1 {
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
        _ => Err(LocateError::Several {
            resolution,
            found: texts(&all),
        }),
    }
}

/// The bundle of the same model as that in `dir` at another resolution: next to it, or where [`choose`] searches; of several, that of
/// the same precision.
pub(crate) fn sibling(
    dir: &Path,
    manifest: &Manifest,
    res: u32,
    models: Option<&Path>,
) -> Result<PathBuf, LocateError> {
    let siblings = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        // A name alone, or `.`.
        _ => {
            let whole = dir.canonicalize().map_err(unreadable(dir))?;
            whole.parent().unwrap_or(&whole).to_path_buf()
        }
    };
    let mut others = Vec::new();
    for place in [siblings].into_iter().chain(places(models)) {
        let (found, _) = bundles_in(&place).map_err(unreadable(&place))?;
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
                return Err(LocateError::SeveralSiblings {
                    name: manifest.name.clone(),
                    resolution: res,
                    found: several.iter().map(|other| other.text.clone()).collect(),
                });
            }
        }
    }
    others.sort();
    others.dedup();
    Err(LocateError::NoSibling {
        name: manifest.name.clone(),
        resolution: res,
        found: others,
        remedy: format!(
            "{} --parts tracker,detector",
            manifest.export_command_at(res)
        ),
    })
}

/// The bundles among `named`, which are bundles or folders of bundles.
///
/// # Errors
/// A folder that is no bundle and holds none.
pub(crate) fn all(named: &[PathBuf]) -> Result<Vec<PathBuf>, LocateError> {
    let mut dirs = Vec::new();
    for named in named {
        if named.join(MANIFEST_FILE).exists() || !named.is_dir() {
            dirs.push(named.clone());
            continue;
        }
        let mut inside = folders_in(named).map_err(unreadable(named))?;
        if inside.is_empty() {
            return Err(LocateError::NotABundle { dir: named.clone() });
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

/// The folders of the bundles in `place`, in no order. A bundle may be in a folder of its model, next to the checkpoint.
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
