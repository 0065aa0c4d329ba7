//! The command line: arguments to a plan, the plan to a run. The only code that prints, and the only user of anyhow.
//!
//! Exit codes: 0 done; 1 done, but outside of a tolerance that was asked for; 2 could not do it (also for wrong
//! arguments, and for a run that was ended by Ctrl-C).

mod ab;
mod args;
mod bench;
mod detect;
mod doctor;
mod hints;
mod inspect;
mod package;
mod plan;
mod progress;
mod proposal_args;
mod run;
mod shell;
mod signals;
mod summary;
mod text_args;
mod worker;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::ab::args::AbArgs;
use self::bench::BenchArgs;
use self::detect::DetectArgs;
use self::doctor::DoctorArgs;
use self::inspect::InspectArgs;
use self::package::PackageArgs;
use self::plan::PlanArgs;
use self::run::RunArgs;
use self::shell::{CompletionsArgs, ManArgs};
use crate::doctor::Verdict;
use crate::prompts::FlagPrompt;
use crate::runtime::Provider;
pub(crate) use crate::words::counted;

/// Tracks objects in video with SAM3 as ONNX graphs, without Python.
#[derive(Debug, Parser)]
#[command(
    name = "snow-ort",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0: finished; 1: finished, but a requirement was not met; 2: could not finish."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Track objects in a video or in a folder of images
    Run(Box<RunArgs>),
    /// Detect objects in images, from texts and example boxes
    Detect(Box<DetectArgs>),
    /// Show how much memory a run needs, and what fits in a limit
    Plan(PlanArgs),
    /// Time bundles and other programs, frame by frame
    Bench(BenchArgs),
    /// Compare variants of a model on a clip: masks, time, memory, and which to run
    Ab(Box<AbArgs>),
    /// Do what a line of JSON on standard input says; `bench` and `ab` start this
    #[command(hide = true)]
    Worker,
    /// Say why a bundle does not run here, or runs slowly or wrongly, and what to do
    Doctor(DoctorArgs),
    /// Try a provider; what `doctor` starts
    #[command(hide = true)]
    DoctorWorker,
    /// Say what a bundle is: graphs, shapes, sizes, policy, source, versions, licence
    Inspect(InspectArgs),
    /// Pack the program with its libraries and bundles into one archive
    Package(PackageArgs),
    /// Print the JSON Schema of a bundle's manifest.json
    Schema,
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands
    Man(ManArgs),
}

/// The exit code of whatever could not be done.
pub(crate) const EXIT_FAILED: u8 = 2;

/// The exit code of what was done, but is outside of what was asked for.
const EXIT_OUTSIDE: u8 = 1;

/// Runs the command that the program's arguments ask for, and returns the exit code.
pub fn main() -> ExitCode {
    signals::ignore_file_size_limit();
    let parsed = Cli::command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches).map(|cli| (cli, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return match u8::try_from(error.exit_code()) {
                Ok(code) => ExitCode::from(code),
                Err(_) => ExitCode::from(EXIT_FAILED),
            };
        }
    };
    match dispatch(cli.command, &matches) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("error: {}", hints::with_advice(&error)));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Runs a command.
fn dispatch(command: Command, matches: &clap::ArgMatches) -> anyhow::Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    let met = |met: bool| match met {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_OUTSIDE),
    };
    if let Some(provider) = provider_of(&command) {
        spare_workspaces(provider);
    }
    match command {
        Command::Run(args) => run::run(&args, &flags(matches, &args.prompting)).map(done),
        Command::Detect(args) => detect::run(&args).map(done),
        Command::Plan(args) => plan::run(&args).map(met),
        Command::Bench(args) => bench::run(&args).map(done),
        Command::Ab(args) => ab::run(&args, &flags(matches, &args.prompting)).map(met),
        Command::Worker => {
            let job = worker::Job::read()?;
            spare_workspaces(job.provider());
            worker::run(job).map(done)
        }
        Command::Doctor(args) => doctor::run(&args).map(|verdict| match verdict {
            Verdict::Fine => ExitCode::SUCCESS,
            Verdict::Findings => ExitCode::from(EXIT_OUTSIDE),
            Verdict::Fails => ExitCode::from(EXIT_FAILED),
        }),
        Command::DoctorWorker => doctor::run_worker().map(done),
        Command::Inspect(args) => inspect::run(&args).map(met),
        Command::Completions(args) => {
            shell::completions(&args);
            Ok(ExitCode::SUCCESS)
        }
        Command::Man(args) => shell::man(&args).map(done),
        Command::Package(args) => package::run(&args).map(done),
        Command::Schema => {
            say(crate::bundle::schema().trim_end());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The prompt flags of the command line in their order, which the matches alone know.
fn flags(matches: &clap::ArgMatches, prompting: &args::PromptArgs) -> Vec<FlagPrompt> {
    let matches = matches.subcommand().map(|(_, matches)| matches);
    matches.map_or_else(Vec::new, |matches| prompting.flag_prompts(matches))
}

/// Where this process runs graphs, if it does.
fn provider_of(command: &Command) -> Option<Provider> {
    match command {
        Command::Run(args) => Some(args.engine.provider),
        Command::Detect(args) => Some(args.engine.provider),
        Command::Plan(args) => Some(args.engine.provider),
        // A worker knows once it has read its job. The others start processes, or run no graph.
        Command::Worker
        | Command::DoctorWorker
        | Command::Ab(_)
        | Command::Bench(_)
        | Command::Doctor(_)
        | Command::Inspect(_)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Package(_)
        | Command::Schema => None,
    }
}

/// Has cuBLAS keep small workspaces, unless the user says how large: it takes tens of MiB for every session otherwise,
/// outside of the arena. On an H100 that was 768 MiB for the four graphs, and no frame was slower without (16 objects at
/// 1008 px, fp16: 100 ms, 105 ms with the large ones).
pub(crate) fn spare_workspaces(provider: Provider) {
    const NAME: &str = "CUBLAS_WORKSPACE_CONFIG";
    if provider == Provider::Cuda && std::env::var_os(NAME).is_none() {
        // SAFETY: the program has one thread yet.
        unsafe { std::env::set_var(NAME, ":16:8") }
    }
}

/// An error with its causes in one line. Some errors repeat their cause in their own message; each is said once.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// One line to stdout. Nobody listening is no reason to fail.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// One line to stderr.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
