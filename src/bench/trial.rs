//! One trial: the variants' processes from their start to their figures.

use std::process::Command;

use super::BenchError;
use super::process::VariantProcess;
use super::report::VariantTiming;
use super::rounds::{Length, measure};

/// How to start a variant's process. The command has all arguments that [`super::protocol`] names.
pub struct VariantCommand {
    /// The variant's name.
    pub name: String,
    /// The command.
    pub command: Command,
    /// A line for its standard input before the first request, with its end of line.
    pub first_line: Option<String>,
}

/// What happens to the trial when a variant fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The trial ends.
    Stop,
    /// The other variants go on.
    Continue,
}

/// Starts all variants one after the other, measures them in rounds, and returns one result for each of `commands`, in
/// their order. [`Length::requests`] is the number of frames that each variant is asked for; `on_frame` is called after
/// each of them.
///
/// # Errors
/// With [`OnFailure::Stop`] the error of the first variant that fails.
pub fn run(
    commands: Vec<VariantCommand>,
    length: Length,
    on_failure: OnFailure,
    on_frame: &mut dyn FnMut(),
) -> Result<Vec<Result<VariantTiming, BenchError>>, BenchError> {
    let names: Vec<String> = commands.iter().map(|entry| entry.name.clone()).collect();
    let mut results: Vec<Option<Result<VariantTiming, BenchError>>> =
        names.iter().map(|_| None).collect();
    // The place in `commands` of each process that has started.
    let mut places = Vec::with_capacity(commands.len());
    let mut processes = Vec::with_capacity(commands.len());
    let mut startups = Vec::with_capacity(commands.len());
    for (place, entry) in commands.into_iter().enumerate() {
        let started =
            VariantProcess::start(&entry.name, entry.command, entry.first_line.as_deref())
                .and_then(|mut process| Ok((process.first_frame()?, process)));
        match started {
            Ok((startup, process)) => {
                on_frame();
                places.push(place);
                processes.push(process);
                startups.push(startup);
            }
            Err(error) if on_failure == OnFailure::Stop => return Err(error),
            Err(error) => results[place] = Some(Err(error)),
        }
    }
    let measured = measure(&mut processes, length, on_frame, &mut |index, error| {
        if on_failure == OnFailure::Stop {
            return Err(error);
        }
        results[places[index]] = Some(Err(error));
        Ok(())
    })?;
    drop(processes);
    for ((place, startup), rounds) in places.into_iter().zip(startups).zip(measured) {
        let timing = VariantTiming::new(&names[place], startup, rounds);
        results[place] = results[place].take().or(timing.map(Ok));
    }
    let nothing = |variant| BenchError::Nothing { variant };
    let results = results.into_iter().zip(names);
    Ok(results
        .map(|(result, name)| result.unwrap_or_else(|| Err(nothing(name))))
        .collect())
}
