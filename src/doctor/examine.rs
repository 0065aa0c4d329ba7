//! Collects all facts: reads the machine, the library and the bundle, and tries each provider.

use std::path::{Path, PathBuf};

use super::compare::{Compare, compare};
use super::facts::{BundleFacts, Facts};
use super::links::Links;
use super::trial::{TrialConfig, TrialOutput, facts_from};
use super::{golden, gpu, host, library, memory};
use crate::bundle::Bundle;
use crate::runtime::Provider;

/// What the doctor examines.
#[derive(Debug, Clone)]
pub struct Options {
    /// The bundle's folder, or why there is none.
    pub bundle: Result<PathBuf, String>,
    /// The provider that must work. If absent, a GPU is tried if there is one, and may fail.
    pub provider: Option<Provider>,
    /// Index of the GPU to try.
    pub device_id: i32,
    /// ONNX Runtime's library or its folder; searched for if absent.
    pub library: Option<PathBuf>,
    /// Number of CPU threads; one per core if absent.
    pub threads: Option<usize>,
    /// Number of objects whose memory must fit.
    pub objects: usize,
    /// When masks are compared with the processor's.
    pub compare: Compare,
    /// A folder for files of the trials.
    pub folder: PathBuf,
}

/// Collects all facts. `run_trial` runs a trial in a separate process, which calls [`super::worker::run`].
///
/// # Errors
/// Those of `run_trial`. All other problems are facts.
pub fn examine<E>(
    options: &Options,
    mut run_trial: impl FnMut(&TrialConfig) -> Result<TrialOutput, E>,
) -> Result<Facts, E> {
    let links = Links::here();
    let (driver, gpus) = gpu::facts(&links);
    let mut facts = Facts {
        host: host::facts(),
        driver,
        gpus,
        device_id: options.device_id,
        library: library::facts(options.library.as_deref(), &links),
        required: options.provider.map(|provider| provider.to_string()),
        ..Facts::default()
    };
    match &options.bundle {
        Ok(dir) => facts.bundle = Some(bundle(dir)),
        Err(reason) => facts.no_bundle = Some(reason.clone()),
    }
    let Some(library) = facts.library.path.clone() else {
        return Ok(facts);
    };
    let usable = facts
        .bundle
        .as_ref()
        .filter(|bundle| bundle.failure.is_none());
    let mut config = TrialConfig {
        events: PathBuf::new(),
        provider: Provider::Cpu,
        device_id: options.device_id,
        library,
        threads: options.threads,
        bundle: usable.map(|bundle| bundle.dir.clone()),
        objects: options.objects,
        budget_bytes: None,
        clip: None,
    };
    let has_gpu = facts.library.cuda.is_some() && !facts.gpus.is_empty();
    let try_cuda = match options.provider {
        Some(provider) => provider == Provider::Cuda,
        None => has_gpu,
    };
    let cuda = try_cuda.then_some(Provider::Cuda);
    for provider in [Provider::Cpu].into_iter().chain(cuda) {
        config.provider = provider;
        config.events = options.folder.join(format!("{provider}-trial.jsonl"));
        config.budget_bytes = memory::budget(&facts, provider);
        let output = run_trial(&config)?;
        let tried = facts_from(provider, &output, &mut facts.library);
        facts.providers.push(tried);
    }
    let folder = &options.folder;
    compare(options.compare, &config, folder, &mut facts, &mut run_trial)?;
    Ok(facts)
}

/// Facts of the bundle in `dir`: its properties, and whether every file is as it was exported.
fn bundle(dir: &Path) -> BundleFacts {
    let mut facts = BundleFacts {
        dir: dir.to_path_buf(),
        ..BundleFacts::default()
    };
    if let Ok(manifest) = Bundle::peek(dir) {
        facts.name = Some(manifest.name);
        facts.resolution = Some(manifest.resolution);
        facts.precision = Some(manifest.precision.to_string());
        facts.random_weights = manifest.source.random_weights;
    }
    match Bundle::open(dir) {
        Ok(bundle) => {
            let graphs = &bundle.manifest().graphs;
            facts.files = bundle.manifest().files();
            facts.golden_graphs = graphs
                .iter()
                .filter(|graph| golden::file_of(&bundle, graph.role).is_some())
                .count();
        }
        Err(error) => facts.failure = Some(super::inspection::with_causes(&error)),
    }
    facts
}
