//! The command line: arguments to a plan, the plan to a run. The only code that prints, and the only user of anyhow.
//!
//! Exit codes: 0 done; 1 done, but outside of a tolerance that was asked for; 2 could not do it (also for wrong
//! arguments, and for a run that was ended by Ctrl-C).

mod ab;
mod args;
mod bench;
mod budget;
mod detect;
pub mod discovery;
mod doctor;
mod guard;
mod inspect;
mod model;
mod models;
mod outputs;
mod package;
pub mod pipeline;
mod plan;
mod progress;
mod propose;
mod run;
pub mod score;
mod shell;
mod signals;
pub mod sink;
mod summary;
mod survey;
mod texts;
mod worker;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::doctor::Verdict;
use crate::runtime::Provider;
pub(crate) use crate::words::counted;

/// The exit code of whatever could not be done.
pub(crate) const EXIT_FAILED: u8 = 2;

/// The exit code of what was done, but is outside of what was asked for.
const EXIT_OUTSIDE: u8 = 1;

/// Runs the command that the program's arguments ask for and returns the exit code.
pub fn main() -> ExitCode {
    signals::ignore_file_size_limit();
    let parsed = args::Cli::command()
        .try_get_matches()
        .and_then(|matches| args::Cli::from_arg_matches(&matches).map(|cli| (cli, matches)));
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
    spare_workspaces(&cli.command);
    // Their order across kinds is known to the matches alone.
    let flags = |command: &str, prompting: &args::PromptArgs| {
        let matches = matches.subcommand_matches(command);
        matches.map_or_else(Vec::new, |matches| prompting.flag_prompts(matches))
    };
    let result = match cli.command {
        args::Command::Run(run_args) => {
            let flags = flags("run", &run_args.prompting);
            run::run(&run_args, &flags).map(|()| ExitCode::SUCCESS)
        }
        args::Command::Detect(detect_args) => detect::run(&detect_args).map(|()| ExitCode::SUCCESS),
        args::Command::Plan(plan_args) => plan::run(&plan_args).map(|fits| match fits {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(EXIT_OUTSIDE),
        }),
        args::Command::Bench(bench_args) => bench::run(&bench_args).map(|()| ExitCode::SUCCESS),
        args::Command::Ab(ab_args) => {
            let flags = flags("ab", &ab_args.prompting);
            ab::run(&ab_args, &flags).map(|met| match met {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(EXIT_OUTSIDE),
            })
        }
        args::Command::BenchWorker(worker_args) => {
            let flags = flags("bench-worker", &worker_args.prompting);
            worker::run(&worker_args, &flags).map(|()| ExitCode::SUCCESS)
        }
        args::Command::Doctor(doctor_args) => {
            doctor::run(&doctor_args).map(|verdict| match verdict {
                Verdict::Fine => ExitCode::SUCCESS,
                Verdict::Findings => ExitCode::from(EXIT_OUTSIDE),
                Verdict::Fails => ExitCode::from(EXIT_FAILED),
            })
        }
        args::Command::DoctorTrial(trial_args) => {
            doctor::run_trial(&trial_args).map(|()| ExitCode::SUCCESS)
        }
        args::Command::Inspect(inspect_args) => {
            inspect::run(&inspect_args).map(|as_exported| match as_exported {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(EXIT_OUTSIDE),
            })
        }
        args::Command::Completions(shell_args) => {
            shell::completions(&shell_args);
            Ok(ExitCode::SUCCESS)
        }
        args::Command::Man(man_args) => shell::man(&man_args).map(|()| ExitCode::SUCCESS),
        args::Command::Package(package_args) => {
            package::run(&package_args).map(|()| ExitCode::SUCCESS)
        }
        args::Command::Schema => {
            say(crate::bundle::schema().trim_end());
            Ok(ExitCode::SUCCESS)
        }
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("error: {}", chain(&error)));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Has cuBLAS keep small workspaces, unless the user says how large: it takes tens of MiB for every session otherwise,
/// beside the arena. On an H100 that was 768 MiB for the four graphs, and no frame was slower without (16 objects at
/// 1008 px, fp16: 100 ms, 105 ms with the large ones).
fn spare_workspaces(command: &args::Command) {
    const NAME: &str = "CUBLAS_WORKSPACE_CONFIG";
    let provider = match command {
        args::Command::Run(args) => args.runtime.provider,
        args::Command::Detect(args) => args.runtime.provider,
        args::Command::Plan(args) => args.runtime.provider,
        args::Command::BenchWorker(args) => args.runtime.provider,
        args::Command::DoctorTrial(args) => args.runtime.provider,
        // They start processes, which may be other programs, or run no graph.
        args::Command::Ab(_)
        | args::Command::Bench(_)
        | args::Command::Doctor(_)
        | args::Command::Inspect(_)
        | args::Command::Completions(_)
        | args::Command::Man(_)
        | args::Command::Package(_)
        | args::Command::Schema => return,
    };
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
