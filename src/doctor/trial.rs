//! A trial of one provider in a separate process: its input, the events that it reports, and the facts made from them.
//!
//! The process reads a [`TrialConfig`] as JSON from standard input and writes one line of JSON for each [`Event`]. Lines written
//! before a crash are kept, and the last [`Event::Begin`] names the step that crashed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::attention;
use super::facts::{Failure, FailureKind, GraphFacts, LibraryFacts, MemoryFacts, ProviderFacts};
use crate::runtime::Provider;

/// What a trial does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialConfig {
    /// The file to which events are written.
    pub events: PathBuf,
    /// The provider to try.
    pub provider: Provider,
    /// Index of the GPU.
    pub device_id: i32,
    /// ONNX Runtime's library.
    pub library: PathBuf,
    /// Number of CPU threads; one per core if absent.
    pub threads: Option<usize>,
    /// The bundle's folder; without one, only the provider is tried.
    pub bundle: Option<PathBuf>,
    /// Number of objects to plan memory for.
    pub objects: usize,
    /// Bytes that graphs may take; memory is not planned if absent.
    pub budget_bytes: Option<u64>,
    /// If set, the trial tracks the drawn clip with the bundle and does nothing else.
    pub clip: Option<ClipConfig>,
}

/// How the drawn clip is tracked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipConfig {
    /// The file to which the logits are written, as [`super::clip::write`] does.
    pub file: PathBuf,
    /// Number of frames to track.
    pub frames: usize,
}

/// One step or result that a trial reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A step begins.
    Begin {
        /// The step, in words.
        during: String,
        /// Role of the graph that runs in it.
        graph: Option<String>,
    },
    /// The library is loaded.
    Library {
        /// Its version.
        version: String,
        /// Its build information.
        build: String,
        /// The providers that it lists.
        providers: Vec<String>,
    },
    /// The provider works: a session was created and computed the right values.
    Serves,
    /// A graph was tried.
    Graph(GraphFacts),
    /// Memory was planned.
    Memory(MemoryFacts),
    /// The trial ended early.
    Failed {
        /// How it ended.
        kind: FailureKind,
        /// The reason.
        reason: String,
    },
    /// All steps are done.
    Done,
}

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It exited.
    Exit,
    /// This signal ended it.
    Signal(i32),
    /// It was ended because it took more than this number of seconds.
    Timeout(u64),
}

/// The output of a trial's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialOutput {
    /// Its events, one in a line. The last line may be incomplete.
    pub events: String,
    /// What the process and the library printed.
    pub printed: String,
    /// How the process ended.
    pub end: End,
}

/// Makes facts from the output of a trial of `provider`. What the library reports about itself goes into `library`.
pub fn facts_from(
    provider: Provider,
    output: &TrialOutput,
    library: &mut LibraryFacts,
) -> ProviderFacts {
    let mut facts = ProviderFacts {
        provider: provider.to_string(),
        ..ProviderFacts::default()
    };
    let mut during = "starting".to_owned();
    let mut ended = false;
    // A line that a crash cut off is skipped.
    let events = output
        .events
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    for event in events {
        match event {
            Event::Begin { during: step, .. } => during = step,
            Event::Library {
                version,
                build,
                providers,
            } => {
                // The file's name may contain the version if the library does not report it.
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
    let mut kernels = attention::parse(&output.printed);
    for graph in &mut facts.graphs {
        graph.attention = kernels.remove(&graph.role).unwrap_or_default();
    }
    if !ended || output.end != End::Exit && facts.failure.is_none() {
        facts.failure = Some(unexpected_end(during, output));
    }
    facts
}

/// The failure of a process that ended in the step `during` without reporting a result.
fn unexpected_end(during: String, output: &TrialOutput) -> Failure {
    // A panic message ends with a note for programmers.
    let last = output
        .printed
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !line.starts_with("note: "));
    let printed = last.map_or(String::new(), |line| format!("; it printed last: {line}"));
    let (kind, how) = match output.end {
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
    Failure {
        during,
        kind,
        reason: format!("{how}{printed}"),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL (the system sends it when memory is full)",
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

    fn output(events: &str, end: End, printed: &str) -> TrialOutput {
        TrialOutput {
            events: events.to_owned(),
            printed: printed.to_owned(),
            end,
        }
    }

    fn begin(during: &str) -> Event {
        Event::Begin {
            during: during.to_owned(),
            graph: None,
        }
    }

    #[test]
    fn a_completed_trial_has_no_failure() {
        let graph = GraphFacts {
            role: "memory_attention".to_owned(),
            ..GraphFacts::default()
        };
        let events = lines(&[
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
        let facts = facts_from(
            Provider::Cuda,
            &output(&events, End::Exit, printed),
            &mut library,
        );
        assert!(facts.serves);
        assert_eq!(facts.failure, None);
        assert_eq!(facts.graphs[0].attention[0].kernel, "MATH");
        assert_eq!(library.version.as_deref(), Some("1.31.1"));
        assert_eq!(library.providers, ["CPUExecutionProvider"]);
    }

    #[test]
    fn a_crash_names_the_step_and_the_last_printed_line() {
        let events = lines(&[Event::Serves, begin("running graph mask_decoder")]);
        let cut = format!("{events}{{\"event\":\"gra");
        let mut library = LibraryFacts::default();
        let end = End::Signal(libc::SIGSEGV);
        let crashed = output(&cut, end, "one\nno kernel image\n\n");
        let facts = facts_from(Provider::Cuda, &crashed, &mut library);
        assert!(facts.serves);
        let failure = facts.failure.unwrap();
        assert_eq!(failure.during, "running graph mask_decoder");
        assert_eq!(failure.kind, FailureKind::Crash);
        assert!(failure.reason.contains("SIGSEGV"), "{failure:?}");
        assert!(failure.reason.contains("no kernel image"), "{failure:?}");

        let late = output("", End::Timeout(9), "");
        let facts = facts_from(Provider::Cpu, &late, &mut library);
        let failure = facts.failure.unwrap();
        assert_eq!(failure.kind, FailureKind::Timeout);
        assert!(failure.reason.contains("9 s"), "{failure:?}");
        // A crash after the last event is a crash, too.
        let done = output(&lines(&[Event::Serves, Event::Done]), end, "");
        let facts = facts_from(Provider::Cpu, &done, &mut library);
        assert_eq!(facts.failure.unwrap().kind, FailureKind::Crash);
    }
}
