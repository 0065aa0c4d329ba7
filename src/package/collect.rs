//! Collects the files of a package, and records where each is from.

use std::collections::BTreeSet;

use super::crates;
use super::debian::Installed;
use super::error::PackageError;
use super::files::{Files, LICENCES, Package};
use super::libraries::{self, PROGRAM};
use super::manifest::{Manifest, SCHEMA_VERSION};
use super::materials::materials;
use super::notes::{self, Facts};
use super::recipe::Recipe;
use super::wheels::Distribution;

/// Collects the files of a package. `step` gets each step in words, or the path of the file that is being read.
///
/// # Errors
/// A part is missing, damaged, or has no known licence.
pub fn collect(recipe: &Recipe, mut step: impl FnMut(&str)) -> Result<Package, PackageError> {
    let version = env!("CARGO_PKG_VERSION");
    let system = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);

    step("reading the program and its libraries");
    let program = libraries::program(&recipe.program)?;
    let available = libraries::available(&recipe.distributions)?;
    let searched: Vec<String> = recipe
        .distributions
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    let runtime = recipe.runtime.find(&available, &searched)?;
    let cuda = match recipe.cuda && recipe.runtime.is_cuda() {
        true => recipe.runtime.cuda(&runtime, &available)?,
        false => Vec::new(),
    };
    let libraries = libraries::libraries(recipe, &program, &runtime, &cuda)?;
    let video = libraries.have_video();
    let crates = crates::linked(video)?;
    let needs = libraries::needs(recipe, &program, &libraries, version);

    let mut files = Files::default();
    files.program(&program, &recipe.program)?;
    drop(program);
    for (name, library) in &libraries.inside {
        step(&format!("lib/{name}"));
        files.library(name, library, libraries.part(library))?;
    }
    let bundles = files.bundles(&recipe.bundles, &mut step)?;

    step("licences and checksums");
    let wheels: Vec<&Distribution> = [&runtime].into_iter().chain(&cuda).collect();
    let debian: BTreeSet<Installed> = libraries.owners.values().cloned().collect();
    files.licences(recipe, &crates, &wheels, &debian)?;
    let facts = Facts {
        version,
        system: &system,
        recipe,
        video,
        needs: &needs,
        debian: &debian,
        ffmpeg: libraries.ffmpeg(),
        bundles: &bundles,
    };
    files.text(&format!("{LICENCES}/SOURCES.md"), notes::sources(&facts));
    files.text("README.md", notes::readme(&facts));

    let images = if video { "" } else { "-images" };
    let name = format!("{PROGRAM}-{version}-{system}-{}{images}", recipe.runtime);
    let materials = materials(&facts, &crates, &wheels);
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        name,
        version: version.to_owned(),
        system: system.clone(),
        runtime: recipe.runtime.to_string(),
        onnxruntime: runtime.title(),
        video,
        cuda_libs: !cuda.is_empty(),
        needs,
        bundles,
        files: Vec::new(),
    };
    files.finish(manifest, &materials)
}
