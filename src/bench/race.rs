//! One measurement from the start of its arms to their figures.

use std::process::Command;

use super::BenchError;
use super::arm::Arm;
use super::report::ArmReport;
use super::rounds::{Length, Timed, measure};

/// An arm that is to be started. The command has all arguments of [`super::protocol`].
pub struct Entry {
    /// The arm's name.
    pub name: String,
    /// What is run.
    pub command: Command,
}

/// What an arm that fails means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The measurement ends.
    End,
    /// The others go on.
    GoOn,
}

/// A started arm with the place of its entry.
struct Runner {
    place: usize,
    arm: Arm,
}

impl Timed for Runner {
    fn frame(&mut self) -> Result<super::protocol::Frame, BenchError> {
        self.arm.frame()
    }
}

/// Starts all arms, one after the other, and measures them in turn; returns what became of each entry.
/// [`Length::asked`] says how many frames each is asked for.
///
/// # Errors
/// With [`OnFailure::End`] the first arm that fails.
pub fn race(
    entries: Vec<Entry>,
    length: Length,
    on_failure: OnFailure,
    on_frame: &mut dyn FnMut(),
) -> Result<Vec<Result<ArmReport, BenchError>>, BenchError> {
    let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    let mut failures: Vec<Option<BenchError>> = names.iter().map(|_| None).collect();
    let mut runners = Vec::with_capacity(entries.len());
    let mut begun = Vec::with_capacity(entries.len());
    for (place, entry) in entries.into_iter().enumerate() {
        let started = Arm::start(&entry.name, entry.command).and_then(|mut arm| {
            let first = arm.first()?;
            Ok((arm, first))
        });
        match started {
            Ok((arm, first)) => {
                on_frame();
                runners.push(Runner { place, arm });
                begun.push(first);
            }
            Err(error) if on_failure == OnFailure::End => return Err(error),
            Err(error) => failures[place] = Some(error),
        }
    }
    let places: Vec<usize> = runners.iter().map(|runner| runner.place).collect();
    let measured = measure(&mut runners, length, on_frame, &mut |index, error| {
        if on_failure == OnFailure::End {
            return Err(error);
        }
        failures[places[index]] = Some(error);
        Ok(())
    })?;
    drop(runners);
    let mut reports: Vec<Option<ArmReport>> = names.iter().map(|_| None).collect();
    for ((place, first), rounds) in places.into_iter().zip(begun).zip(measured) {
        reports[place] = ArmReport::new(&names[place], first, rounds);
    }
    let ended = reports.into_iter().zip(failures).zip(names);
    Ok(ended
        .map(|((report, failure), name)| match (failure, report) {
            (None, Some(report)) => Ok(report),
            (Some(error), _) => Err(error),
            (None, None) => Err(BenchError::Nothing { arm: name }),
        })
        .collect())
}
