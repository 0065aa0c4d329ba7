//! One provider, tried in a process of its own: what that process does, what it tells, and what is made of it.
//!
//! The process writes one line of JSON for each [`Event`]. Whatever ends it, the lines up to then stay, and the last
//! [`Event::Begin`] says what it was doing.

use std::path::PathBuf;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::attention;
use super::clip::{self, Followed};
use super::facts::{
    Failure, FailureKind, GoldenFacts, GraphFacts, LibraryFacts, MemoryFacts, Placement,
    ProviderFacts,
};
use super::golden::{self, GoldenError};
use super::memory;
use crate::bundle::{Bundle, GraphFile};
use crate::runtime::{Backend, Graph, GraphError, Provider, Runtime, RuntimeOptions};
use crate::tracker::{Graphs, ModelSpec, check_precision};

/// What is to be tried.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The library, the provider and how to run.
    pub options: RuntimeOptions,
    /// The bundle's folder, if there is one.
    pub bundle: Option<PathBuf>,
    /// Objects to plan for.
    pub objects: usize,
    /// Bytes that graphs may take; no plan is made without.
    pub budget: Option<u64>,
    /// With this, the drawn clip is followed with the bundle, and nothing else is done.
    pub clip: Option<ClipTrial>,
}

/// The drawn clip, to be followed.
#[derive(Debug, Clone)]
pub struct ClipTrial {
    /// The file that the logits go to, as [`clip::write`] writes them.
    pub file: PathBuf,
    /// Frames to follow.
    pub frames: usize,
}

/// What a trial tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It begins something.
    Begin {
        /// What, in words.
        during: String,
        /// The role of the graph that it is done with.
        graph: Option<String>,
    },
    /// The library is loaded.
    Library {
        /// Its version.
        version: String,
        /// Its build.
        build: String,
        /// The providers that it names.
        providers: Vec<String>,
    },
    /// The provider makes sessions, and they compute.
    Serves,
    /// A graph was tried.
    Graph(GraphFacts),
    /// Memory was planned.
    Memory(MemoryFacts),
    /// It cannot go on.
    Failed {
        /// How it ended.
        kind: FailureKind,
        /// Why.
        reason: String,
    },
    /// Everything was tried.
    Done,
}

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Exit,
    /// By a signal.
    Signal(i32),
    /// By whoever waited, after so many seconds.
    Timeout(u64),
}

/// Tries a provider and tells of it.
pub fn run(trial: &Trial, tell: &mut dyn FnMut(Event)) {
    match attempt(trial, tell) {
        Ok(()) => tell(Event::Done),
        Err(error) => {
            let kind = match error.downcast_ref() {
                Some(GraphError::LibraryTooOld { .. }) => FailureKind::TooOld,
                _ => FailureKind::Error,
            };
            let reason = error.to_string();
            tell(Event::Failed { kind, reason });
        }
    }
}

fn attempt(
    trial: &Trial,
    tell: &mut dyn FnMut(Event),
) -> Result<(), Box<dyn std::error::Error + 'static>> {
    let begin = |during: &str, graph: Option<&str>| Event::Begin {
        during: during.to_owned(),
        graph: graph.map(str::to_owned),
    };
    tell(begin("loading the library", None));
    let options = RuntimeOptions {
        // The clip runs as `snow-ort run` would run it.
        record_placement: trial.clip.is_none(),
        ..trial.options.clone()
    };
    let mut runtime = Runtime::load(&options)?;
    tell(Event::Library {
        version: runtime.version().to_owned(),
        build: runtime.build_info(),
        providers: runtime.named_providers(),
    });
    tell(begin("making a session", None));
    runtime.try_provider()?;
    tell(Event::Serves);
    let Some(dir) = &trial.bundle else {
        return Ok(());
    };
    let bundle = Bundle::open(dir)?;
    if let Some(plan) = &trial.clip {
        return follow(&bundle, runtime, plan, &mut |during| {
            tell(begin(during, None))
        });
    }
    for graph in &bundle.manifest().graphs {
        let role = graph.role.as_str();
        tell(begin(&format!("running graph {role}"), Some(role)));
        tell(Event::Graph(graph_facts(&bundle, graph, &runtime)));
    }
    if let Some(budget) = trial.budget {
        tell(begin("measuring what the graphs need of memory", None));
        let memory = memory::fit(&bundle, &mut runtime, trial.objects, budget)?;
        tell(Event::Memory(memory));
    }
    Ok(())
}

/// Follows the drawn clip. The processor is what others are held against, so there one object at a time will do.
fn follow(
    bundle: &Bundle,
    runtime: Runtime,
    plan: &ClipTrial,
    tell: &mut dyn FnMut(&str),
) -> Result<(), Box<dyn std::error::Error + 'static>> {
    let provider = runtime.provider();
    check_precision(bundle, provider)?;
    let spec = ModelSpec::of(bundle)?;
    let backend: Rc<dyn Backend> = Rc::new(runtime);
    let run = |chunk: usize| {
        let graphs = Graphs::load(bundle, backend.as_ref())?;
        clip::follow(
            spec.clone(),
            Rc::clone(&backend),
            graphs,
            plan.frames,
            chunk,
        )
    };
    let together = match provider {
        Provider::Cpu => None,
        _ => {
            tell("following the objects of the drawn clip together");
            Some(run(clip::OBJECTS)?)
        }
    };
    tell("following the objects of the drawn clip one at a time");
    let alone = run(1)?;
    clip::write(&plan.file, &Followed { together, alone })?;
    Ok(())
}

fn graph_facts(bundle: &Bundle, spec: &GraphFile, runtime: &Runtime) -> GraphFacts {
    let path = bundle.dir().join(&spec.file);
    let mut facts = GraphFacts {
        role: spec.role.to_string(),
        ..GraphFacts::default()
    };
    type Ran = Result<(Vec<Placement>, Option<GoldenFacts>), GoldenError>;
    let work = |graph: &mut dyn Graph| -> Ran {
        let placement = placement(graph)?;
        let golden = golden::compare(bundle, spec.role, graph, runtime)?;
        Ok((placement, golden))
    };
    match runtime.alone(spec.role.as_str(), &path, None, work) {
        Ok(((placement, golden), _)) => {
            facts.placement = placement;
            facts.golden = golden;
        }
        Err(error) => facts.failure = Some(error.to_string()),
    }
    facts
}

/// Nodes by provider and operator, in the order of their names.
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

/// Puts together what a trial of `provider` told (`lines`), how it ended and what the library printed meanwhile. What the
/// library says of itself goes into `library`.
pub fn conclude(
    provider: &str,
    (lines, end, printed): (&str, End, &str),
    library: &mut LibraryFacts,
) -> ProviderFacts {
    let mut facts = ProviderFacts {
        provider: provider.to_owned(),
        ..ProviderFacts::default()
    };
    let mut during = "starting".to_owned();
    let mut ended = false;
    // A line that a crash cut off is none.
    let events = lines
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    for event in events {
        match event {
            Event::Begin { during: now, .. } => during = now,
            Event::Library {
                version,
                build,
                providers,
            } => {
                // A file's name may say it where the library itself does not.
                if version != "unknown" || library.version.is_none() {
                    library.version = Some(version);
                }
                library.build = Some(build);
                library.providers = providers;
            }
            Event::Serves => facts.serves = true,
            Event::Graph(graph) => facts.graphs.push(graph),
            Event::Memory(memory) => facts.memory = Some(memory),
            Event::Failed { kind, reason } => {
                ended = true;
                facts.failure = Some(Failure {
                    during: during.clone(),
                    kind,
                    reason,
                });
            }
            Event::Done => ended = true,
        }
    }
    let mut kernels = attention::parse(printed);
    for graph in &mut facts.graphs {
        graph.attention = kernels.remove(&graph.role).unwrap_or_default();
    }
    if !ended || end != End::Exit && facts.failure.is_none() {
        // A panic ends in advice for programmers.
        let last = printed
            .lines()
            .map(str::trim)
            .rfind(|line| !line.is_empty() && !line.starts_with("note: "));
        let words = last.map_or(String::new(), |line| format!("; its last words: {line}"));
        let (kind, how) = match end {
            End::Signal(signal) => (
                FailureKind::Crash,
                format!("the process was ended by {}", signal_name(signal)),
            ),
            End::Timeout(seconds) => (
                FailureKind::Timeout,
                format!("it was not done after {seconds} s"),
            ),
            End::Exit => (
                FailureKind::Crash,
                "the process ended without a result".to_owned(),
            ),
        };
        facts.failure = Some(Failure {
            during,
            kind,
            reason: format!("{how}{words}"),
        });
    }
    facts
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL, as the system does when memory is full",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(events: &[Event]) -> String {
        let line = |event| serde_json::to_string(event).unwrap() + "\n";
        events.iter().map(line).collect()
    }

    fn begin(during: &str) -> Event {
        Event::Begin {
            during: during.to_owned(),
            graph: None,
        }
    }

    #[test]
    fn a_trial_that_is_done_has_no_failure() {
        let graph = GraphFacts {
            role: "memory_attention".to_owned(),
            ..GraphFacts::default()
        };
        let told = lines(&[
            begin("loading the library"),
            Event::Library {
                version: "1.31.1".to_owned(),
                build: "b".to_owned(),
                providers: vec!["CPUExecutionProvider".to_owned()],
            },
            Event::Serves,
            Event::Graph(graph),
            Event::Done,
        ]);
        let printed =
            "snow-ort-graph memory_attention\nOperator=A Node=n DataType=fp16 SdpaKernel=MATH\n";
        let mut library = LibraryFacts::default();
        let facts = conclude("cuda", (&told, End::Exit, printed), &mut library);
        assert!(facts.serves);
        assert_eq!(facts.failure, None);
        assert_eq!(facts.graphs[0].attention[0].kernel, "MATH");
        assert_eq!(library.version.as_deref(), Some("1.31.1"));
        assert_eq!(library.providers, ["CPUExecutionProvider"]);
    }

    #[test]
    fn a_crash_says_what_was_being_done_and_the_last_words() {
        let told = lines(&[Event::Serves, begin("running graph mask_decoder")]);
        let cut = format!("{told}{{\"event\":\"gra");
        let mut library = LibraryFacts::default();
        let end = End::Signal(libc::SIGSEGV);
        let facts = conclude(
            "cuda",
            (&cut, end, "one\nno kernel image\n\n"),
            &mut library,
        );
        assert!(facts.serves);
        let failure = facts.failure.unwrap();
        assert_eq!(failure.during, "running graph mask_decoder");
        assert_eq!(failure.kind, FailureKind::Crash);
        assert!(failure.reason.contains("SIGSEGV"), "{failure:?}");
        assert!(failure.reason.contains("no kernel image"), "{failure:?}");

        let facts = conclude("cpu", ("", End::Timeout(9), ""), &mut library);
        let failure = facts.failure.unwrap();
        assert_eq!(failure.kind, FailureKind::Timeout);
        assert!(failure.reason.contains("9 s"), "{failure:?}");
        // A crash at the very end, after everything was told, is one all the same.
        let done = lines(&[Event::Serves, Event::Done]);
        let facts = conclude("cpu", (&done, end, ""), &mut library);
        assert_eq!(facts.failure.unwrap().kind, FailureKind::Crash);
    }
}
