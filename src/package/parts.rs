//! Collects what goes into a package, and says where each file is from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::archive::{Content, Entry, Sum};
use super::bom::{self, Material};
use super::closure::{self, Places};
use super::crates::Crates;
use super::debian::{self, Installed};
use super::elf::{self, Elf};
use super::glibc::Glibc;
use super::manifest::{
    BundleEntry, FileEntry, MANIFEST, Manifest, Needs, PartNeeds, SCHEMA_VERSION,
};
use super::notes::{self, Facts};
use super::wheels::{self, Distribution};
use super::{PackageError, Recipe};
use crate::bundle::{Bundle, hex_digest};

/// Where the program looks for its libraries (see build.rs).
const LIB: &str = "$ORIGIN/lib";
const PROGRAM: &str = "snow-ort";
const LICENCES: &str = "licences";
/// What scripts/build-ffmpeg leaves beside the libraries.
const FFMPEG_VERSION: &str = "VERSION";

/// All that goes into an archive.
#[derive(Debug)]
pub struct Package {
    /// The files, with their sums.
    pub entries: Vec<(Entry, Sum)>,
    /// What the package says of itself.
    pub manifest: Manifest,
}

/// A library to be packed.
struct Library {
    path: PathBuf,
    elf: Elf,
    origin: Origin,
}

/// Where a library is from.
enum Origin {
    Wheel(Distribution),
    Ffmpeg(String),
    System,
}

/// Collects the files of a package; `step` is told what is being done.
///
/// # Errors
/// Whatever is missing, damaged, or has no known licence.
pub fn collect(recipe: &Recipe, mut step: impl FnMut(&str)) -> Result<Package, PackageError> {
    let version = env!("CARGO_PKG_VERSION");
    let system = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);

    step("reading the program and its libraries");
    let program = program(&recipe.program)?;
    let available = available(&recipe.distributions)?;
    let looked: Vec<String> = recipe
        .distributions
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    let runtime = recipe.runtime.find(&available, &looked)?;
    let cuda = match recipe.cuda && recipe.runtime.is_cuda() {
        true => recipe.runtime.cuda(&runtime, &available)?,
        false => Vec::new(),
    };
    let (mut libraries, outside) = libraries(recipe, &program, &runtime, &cuda)?;
    let owners = owners(&libraries)?;
    let video = libraries.keys().any(|name| name.starts_with("libavcodec."));
    let needs = needs(recipe, &program, &libraries, &owners, outside, version);

    let mut pack = Pack::default();
    pack.bytes(
        PROGRAM,
        true,
        &format!("snow-ort {version}"),
        elf::stripped(&program.bytes, &recipe.program)?,
    );
    pack.original(PROGRAM, hex_digest(&program.bytes));
    drop(program);
    for (name, library) in &mut libraries {
        step(&format!("lib/{name}"));
        pack.library(name, library, &owners)?;
    }
    let bundles = pack.bundles(&recipe.bundles, &mut step)?;

    step("licences and checksums");
    let debian: BTreeSet<Installed> = owners.values().cloned().collect();
    let ffmpeg = libraries
        .values()
        .find_map(|library| match &library.origin {
            Origin::Ffmpeg(version) => Some(version.clone()),
            _ => None,
        });
    pack.licences(recipe, &runtime, &cuda, &debian)?;
    let facts = Facts {
        version,
        system: &system,
        recipe,
        video,
        needs: &needs,
        debian: &debian,
        ffmpeg: ffmpeg.as_deref(),
        bundles: &bundles,
    };
    pack.text(&format!("{LICENCES}/SOURCES.md"), notes::sources(&facts));
    pack.text("README.md", notes::readme(&facts));

    let name = format!(
        "{PROGRAM}-{version}-{system}-{}{}",
        recipe.runtime,
        if video { "" } else { "-images" }
    );
    let materials = materials(&facts, &runtime, &cuda);
    pack.finish(
        Manifest {
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
        },
        &materials,
    )
}

/// The program, read and checked.
struct Program {
    bytes: Vec<u8>,
    elf: Elf,
}

fn program(path: &Path) -> Result<Program, PackageError> {
    let elf = Elf::read(path)?;
    if elf.search.first().is_none_or(|first| first != LIB) {
        return Err(PackageError::Search {
            file: path.to_path_buf(),
            search: elf.search.join(":"),
        });
    }
    let bytes = fs::read(path).map_err(PackageError::read(path))?;
    Ok(Program { bytes, elf })
}

fn available(folders: &[PathBuf]) -> Result<BTreeMap<String, Distribution>, PackageError> {
    let mut available = BTreeMap::new();
    for folder in folders {
        for (name, distribution) in wheels::installed(folder)? {
            available.entry(name).or_insert(distribution);
        }
    }
    Ok(available)
}

/// All libraries to pack, and the names of those that stay outside.
fn libraries(
    recipe: &Recipe,
    program: &Program,
    runtime: &Distribution,
    cuda: &[Distribution],
) -> Result<(BTreeMap<String, Library>, Vec<String>), PackageError> {
    let mut libraries = BTreeMap::new();
    let mut start = BTreeMap::from([(PROGRAM.to_owned(), program.elf.needed.clone())]);
    for distribution in [runtime].into_iter().chain(cuda) {
        let is_runtime = distribution.name == runtime.name;
        for (name, path) in distribution.libraries() {
            if is_runtime && !recipe.runtime.takes(&name) {
                continue;
            }
            let elf = Elf::read(&path)?;
            start.insert(name.clone(), elf.needed.clone());
            let origin = Origin::Wheel(distribution.clone());
            libraries.insert(name, Library { path, elf, origin });
        }
    }
    let mut required = vec!["libonnxruntime.so."];
    if recipe.runtime.is_cuda() {
        required.push("libonnxruntime_providers_cuda.so");
    }
    for library in required {
        if !libraries.keys().any(|name| name.starts_with(library)) {
            return Err(PackageError::NotInWheel {
                wheel: runtime.title(),
                library: library.trim_end_matches('.').to_owned(),
            });
        }
    }

    let ffmpeg = recipe.ffmpeg.as_deref().map(Ffmpeg::new).transpose()?;
    let first = ffmpeg.iter().map(|own| own.lib.clone()).collect();
    let mut places = Places::new(first)?;
    let closure = closure::close::<PackageError>(&start, |name, by| {
        if closure::left_to_the_system(name, !cuda.is_empty()) {
            return Ok(None);
        }
        let path = places.find(name).ok_or_else(|| PackageError::NoLibrary {
            name: name.to_owned(),
            by: by.to_owned(),
        })?;
        let elf = Elf::read(&path)?;
        places.learn(&elf, &path);
        let needed = elf.needed.clone();
        let origin = match &ffmpeg {
            Some(own) if path.starts_with(&own.lib) => Origin::Ffmpeg(own.version.clone()),
            _ => Origin::System,
        };
        libraries.insert(name.to_owned(), Library { path, elf, origin });
        Ok(Some(needed))
    })?;
    Ok((libraries, closure.outside.into_iter().collect()))
}

/// FFmpeg's libraries in a folder of their own.
struct Ffmpeg {
    lib: PathBuf,
    version: String,
}

impl Ffmpeg {
    fn new(dir: &Path) -> Result<Self, PackageError> {
        let file = dir.join(FFMPEG_VERSION);
        let version = fs::read_to_string(&file).map_err(PackageError::read(&file))?;
        Ok(Self {
            lib: dir.join("lib"),
            version: version.trim().to_owned(),
        })
    }
}

fn owners(
    libraries: &BTreeMap<String, Library>,
) -> Result<BTreeMap<PathBuf, Installed>, PackageError> {
    let system = libraries
        .values()
        .filter(|library| matches!(library.origin, Origin::System));
    debian::owners(&system.map(|library| library.path.clone()).collect())
}

/// What a library is part of, in words.
fn part(library: &Library, owners: &BTreeMap<PathBuf, Installed>) -> String {
    match &library.origin {
        Origin::Wheel(distribution) => distribution.title(),
        Origin::Ffmpeg(version) => format!("ffmpeg {version}"),
        Origin::System => owners
            .get(&library.path)
            .map(Installed::title)
            .unwrap_or_default(),
    }
}

fn needs(
    recipe: &Recipe,
    program: &Program,
    libraries: &BTreeMap<String, Library>,
    owners: &BTreeMap<PathBuf, Installed>,
    outside: Vec<String>,
    version: &str,
) -> Needs {
    let mut parts: BTreeMap<String, Glibc> = BTreeMap::new();
    for library in libraries.values() {
        if let Some(glibc) = Glibc::needed_by(&library.elf) {
            let known = parts.entry(part(library, owners)).or_insert(glibc);
            *known = glibc.max(*known);
        }
    }
    let own = Glibc::needed_by(&program.elf);
    let entry = |(part, glibc): (String, Glibc)| PartNeeds {
        part,
        glibc: glibc.to_string(),
    };
    let least = parts
        .values()
        .copied()
        .chain(own)
        .max()
        .unwrap_or(Glibc(2, 0));
    let own = own.map(|glibc| (format!("{PROGRAM} {version}"), glibc));
    let gpu = recipe.runtime.gpu();
    Needs {
        glibc: least.to_string(),
        glibc_by_part: own.into_iter().chain(parts).map(entry).collect(),
        libraries: outside,
        nvidia_driver: gpu.map(|(driver, _)| driver.to_owned()),
        compute_capability: gpu.map(|(_, capability)| capability.to_owned()),
    }
}

/// The files so far.
#[derive(Default)]
struct Pack {
    entries: BTreeMap<String, Entry>,
    originals: BTreeMap<String, String>,
}

impl Pack {
    fn add(&mut self, entry: Entry) {
        self.entries.insert(entry.path.clone(), entry);
    }

    fn bytes(&mut self, path: &str, executable: bool, from: &str, bytes: Vec<u8>) {
        self.add(Entry {
            path: path.to_owned(),
            executable,
            from: from.to_owned(),
            content: Content::Bytes(bytes),
        });
    }

    fn text(&mut self, path: &str, text: String) {
        let from = format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION"));
        self.bytes(path, false, &from, text.into_bytes());
    }

    fn original(&mut self, path: &str, sha256: String) {
        self.originals.insert(path.to_owned(), sha256);
    }

    /// A library, with its own folder as RPATH. NVIDIA's licences ask for files as they are: those stay so if they find
    /// it already. A RUNPATH elsewhere becomes an RPATH, which comes before LD_LIBRARY_PATH.
    fn library(
        &mut self,
        name: &str,
        library: &Library,
        owners: &BTreeMap<PathBuf, Installed>,
    ) -> Result<(), PackageError> {
        let mut entry = Entry {
            path: format!("lib/{name}"),
            executable: false,
            from: part(library, owners),
            content: Content::File(library.path.clone()),
        };
        let original = entry.sum()?.sha256;
        let mut as_it_is = false;
        if let Origin::Wheel(distribution) = &library.origin {
            distribution.check(&library.path, &original)?;
            as_it_is = distribution.is_nvidia() && library.elf.finds_its_folder();
        }
        if !as_it_is {
            let bytes = fs::read(&library.path).map_err(PackageError::read(&library.path))?;
            entry.content = Content::Bytes(elf::beside_itself(&bytes, &library.path)?);
            self.original(&entry.path, original);
        }
        self.add(entry);
        Ok(())
    }

    fn bundles(
        &mut self,
        dirs: &[PathBuf],
        step: &mut impl FnMut(&str),
    ) -> Result<Vec<BundleEntry>, PackageError> {
        let mut bundles: Vec<BundleEntry> = Vec::new();
        let mut known: BTreeMap<String, PathBuf> = BTreeMap::new();
        for dir in dirs {
            let real = dir.canonicalize().map_err(PackageError::read(dir))?;
            let name = real
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            step(&format!("models/{name}"));
            if let Some(first) = known.insert(name.clone(), dir.clone()) {
                return Err(PackageError::SameName {
                    name,
                    first,
                    second: dir.clone(),
                });
            }
            let bundle = Bundle::open(dir)?;
            let path = format!("models/{name}");
            for file in bundle.files() {
                self.add(Entry {
                    path: format!("{path}/{file}"),
                    executable: false,
                    from: format!("bundle {name}"),
                    content: Content::File(dir.join(file)),
                });
            }
            bundles.push(BundleEntry {
                path,
                manifest_sha256: bundle.manifest_sha256().to_owned(),
                licence: bundle.manifest().source.licence.clone(),
            });
        }
        bundles.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(bundles)
    }

    fn licences(
        &mut self,
        recipe: &Recipe,
        runtime: &Distribution,
        cuda: &[Distribution],
        debian: &BTreeSet<Installed>,
    ) -> Result<(), PackageError> {
        self.text(
            &format!("{LICENCES}/LICENSE-MIT"),
            include_str!("../../LICENSE-MIT").to_owned(),
        );
        self.text(
            &format!("{LICENCES}/LICENSE-APACHE"),
            include_str!("../../LICENSE-APACHE").to_owned(),
        );
        self.text(
            &format!("{LICENCES}/rust-crates.txt"),
            Crates::linked().licences(),
        );
        for distribution in [runtime].into_iter().chain(cuda) {
            for entry in distribution.licences(LICENCES) {
                self.add(entry);
            }
        }
        for entry in debian::licences(debian, LICENCES)? {
            self.add(entry);
        }
        if let Some(dir) = &recipe.ffmpeg {
            let dir = dir.join(LICENCES);
            for entry in fs::read_dir(&dir).map_err(PackageError::read(&dir))? {
                let file = entry.map_err(PackageError::read(&dir))?;
                let name = file.file_name().to_string_lossy().into_owned();
                let bytes = fs::read(file.path()).map_err(PackageError::read(&file.path()))?;
                self.bytes(&format!("{LICENCES}/ffmpeg/{name}"), false, "ffmpeg", bytes);
            }
        }
        Ok(())
    }

    /// Adds what lists the others: manifest, bill of materials, checksums.
    fn finish(
        mut self,
        mut manifest: Manifest,
        materials: &[Material],
    ) -> Result<Package, PackageError> {
        let mut summed = Vec::with_capacity(self.entries.len() + 3);
        for (path, entry) in std::mem::take(&mut self.entries) {
            let sum = entry.sum()?;
            manifest.files.push(FileEntry {
                original_sha256: self.originals.remove(&path),
                path,
                bytes: sum.bytes,
                sha256: sum.sha256.clone(),
                from: entry.from.clone(),
            });
            summed.push((entry, sum));
        }
        let digest = hex_digest(checksums(&summed).as_bytes());
        let bom = bom::document(&manifest.name, &manifest.version, &digest, materials);
        let pretty = |value: &serde_json::Value| format!("{value:#}\n");
        self.text("bom.spdx.json", pretty(&bom));
        self.text(MANIFEST, pretty(&serde_json::json!(manifest)));
        for (_, entry) in std::mem::take(&mut self.entries) {
            let sum = entry.sum()?;
            summed.push((entry, sum));
        }
        summed.sort_by(|a, b| a.0.path.cmp(&b.0.path));
        self.text("SHA256SUMS", checksums(&summed));
        for (_, entry) in self.entries {
            let sum = entry.sum()?;
            summed.push((entry, sum));
        }
        Ok(Package {
            entries: summed,
            manifest,
        })
    }
}

/// As `sha256sum --check` reads it.
fn checksums(entries: &[(Entry, Sum)]) -> String {
    entries
        .iter()
        .map(|(entry, sum)| format!("{}  {}\n", sum.sha256, entry.path))
        .collect()
}

fn materials(facts: &Facts<'_>, runtime: &Distribution, cuda: &[Distribution]) -> Vec<Material> {
    let mut materials = vec![Material {
        name: PROGRAM.to_owned(),
        version: facts.version.to_owned(),
        licence: env!("CARGO_PKG_LICENSE").to_owned(),
        purl: None,
        linked: false,
        comment: String::new(),
    }];
    let linked = Crates::linked().crates.into_iter();
    materials.extend(
        linked
            .filter(|one| facts.video || !one.name.starts_with("ffmpeg"))
            .map(|one| Material {
                purl: Some(format!("pkg:cargo/{}@{}", one.name, one.version)),
                name: one.name,
                version: one.version,
                licence: one.licence,
                linked: true,
                comment: String::new(),
            }),
    );
    materials.extend([runtime].into_iter().chain(cuda).map(|wheel| Material {
        name: wheel.name.clone(),
        version: wheel.version.clone(),
        licence: wheel.licence.clone(),
        purl: Some(format!(
            "pkg:pypi/{}@{}",
            wheels::normalized(&wheel.name),
            wheel.version
        )),
        linked: false,
        comment: String::new(),
    }));
    if let Some(version) = facts.ffmpeg {
        materials.push(Material {
            name: "ffmpeg".to_owned(),
            version: version.to_owned(),
            licence: "GPL-2.0-or-later".to_owned(),
            purl: Some(format!("pkg:deb/debian/ffmpeg@{version}?arch=source")),
            linked: false,
            comment:
                "Built from Debian's source with the options in licences/ffmpeg/CONFIGURATION."
                    .to_owned(),
        });
    }
    materials.extend(facts.debian.iter().map(|package| Material {
        name: package.name.clone(),
        version: package.version.clone(),
        licence: String::new(),
        purl: Some(format!(
            "pkg:deb/debian/{}@{}",
            package.name, package.version
        )),
        linked: false,
        comment: format!(
            "Licences: licences/debian/{}. Source package: {} {}.",
            package.name, package.source, package.source_version
        ),
    }));
    materials.extend(facts.bundles.iter().map(|bundle| Material {
        name: bundle.path.clone(),
        version: bundle.manifest_sha256.clone(),
        licence: bundle.licence.clone(),
        purl: None,
        linked: false,
        comment: "A bundle; its version is the SHA-256 of its manifest.json.".to_owned(),
    }));
    materials
}
