//! The process of a trial: tries a provider, runs the bundle's graphs and reports events.

use std::error::Error;
use std::sync::Arc;

use super::clip::{self, ClipLogits};
use super::facts::{FailureKind, GoldenFacts, GraphFacts, Placement};
use super::golden::{self, GoldenError};
use super::memory;
use super::trial::{ClipConfig, Event, TrialConfig};
use crate::bundle::{Bundle, GraphFile};
use crate::runtime::{Backend, Engine, EngineOptions, Graph, GraphError, Provider};
use crate::tracker::{Graphs, ModelSpec, check_precision};

/// Runs a trial. `report` gets each event when it happens; the last one is [`Event::Done`] or [`Event::Failed`].
pub fn run(config: &TrialConfig, report: &mut dyn FnMut(Event)) {
    match attempt(config, report) {
        Ok(()) => report(Event::Done),
        Err(error) => {
            let kind = match error.downcast_ref() {
                Some(GraphError::LibraryTooOld { .. }) => FailureKind::TooOld,
                _ => FailureKind::Error,
            };
            let reason = error.to_string();
            report(Event::Failed { kind, reason });
        }
    }
}

fn begin(during: &str, graph: Option<&str>) -> Event {
    Event::Begin {
        during: during.to_owned(),
        graph: graph.map(str::to_owned),
    }
}

fn attempt(config: &TrialConfig, report: &mut dyn FnMut(Event)) -> Result<(), Box<dyn Error>> {
    report(begin("loading the library", None));
    let mut engine = Engine::load(&EngineOptions {
        provider: config.provider,
        library: Some(config.library.clone()),
        threads: config.threads,
        device_id: config.device_id,
        // The clip runs with the options of `snow-ort run`.
        record_placement: config.clip.is_none(),
        ..EngineOptions::default()
    })?;
    report(Event::Library {
        version: engine.version().to_owned(),
        build: engine.build_info(),
        providers: engine.named_providers(),
    });
    report(begin("making a session", None));
    engine.try_provider()?;
    report(Event::Serves);
    let Some(dir) = &config.bundle else {
        return Ok(());
    };
    let bundle = Bundle::open(dir)?;
    if let Some(clip) = &config.clip {
        return track_clip(&bundle, engine, clip, report);
    }
    for graph in &bundle.manifest().graphs {
        let role = graph.role.as_str();
        report(begin(&format!("running graph {role}"), Some(role)));
        report(Event::Graph(graph_facts(&bundle, graph, &engine)));
    }
    if let Some(budget) = config.budget_bytes {
        report(begin("measuring the memory of the graphs", None));
        let memory = memory::fit(&bundle, &mut engine, config.objects, budget)?;
        report(Event::Memory(memory));
    }
    Ok(())
}

/// Tracks the drawn clip and writes its logits. On the processor, which is the reference, objects are tracked one at a time only.
fn track_clip(
    bundle: &Bundle,
    engine: Engine,
    config: &ClipConfig,
    report: &mut dyn FnMut(Event),
) -> Result<(), Box<dyn Error>> {
    let provider = engine.provider();
    check_precision(bundle, provider)?;
    let spec = ModelSpec::of(bundle)?;
    let backend: Arc<dyn Backend> = Arc::new(engine);
    let track = |chunk: usize| {
        let graphs = Graphs::load(bundle, backend.as_ref())?;
        let backend = Arc::clone(&backend);
        clip::track(spec.clone(), backend, graphs, config.frames, chunk)
    };
    let together = match provider {
        Provider::Cpu => None,
        _ => {
            report(begin(
                "tracking the objects of the drawn clip together",
                None,
            ));
            Some(track(clip::OBJECTS)?)
        }
    };
    report(begin(
        "tracking the objects of the drawn clip one at a time",
        None,
    ));
    let alone = track(1)?;
    clip::write(&config.file, &ClipLogits { together, alone })?;
    Ok(())
}

/// Loads and runs one graph: where its nodes run, and how far its outputs are from the golden vectors.
fn graph_facts(bundle: &Bundle, spec: &GraphFile, engine: &Engine) -> GraphFacts {
    let path = bundle.dir().join(&spec.file);
    let mut facts = GraphFacts {
        role: spec.role.to_string(),
        ..GraphFacts::default()
    };
    type Results = Result<(Vec<Placement>, Option<GoldenFacts>), GoldenError>;
    let work = |graph: &mut dyn Graph| -> Results {
        let placement = placement(graph)?;
        let golden = golden::compare(bundle, spec.role, graph, engine)?;
        Ok((placement, golden))
    };
    match engine.alone(spec.role.as_str(), &path, None, work) {
        Ok(((placement, golden), _)) => {
            facts.placement = placement;
            facts.golden = golden;
        }
        Err(error) => facts.failure = Some(error.to_string()),
    }
    facts
}

/// Counts of nodes by provider and operator, sorted by these names.
fn placement(graph: &dyn Graph) -> Result<Vec<Placement>, GraphError> {
    let mut counts: Vec<Placement> = Vec::new();
    for node in graph.placement()?.unwrap_or_default() {
        let known = counts
            .iter_mut()
            .find(|known| known.provider == node.provider && known.operator == node.operator);
        match known {
            Some(known) => known.nodes += 1,
            None => counts.push(Placement {
                provider: node.provider,
                operator: node.operator,
                nodes: 1,
            }),
        }
    }
    counts.sort_by(|a, b| (&a.provider, &a.operator).cmp(&(&b.provider, &b.operator)));
    Ok(counts)
}
