//! `snow-ort ab`: variants of a model on one clip, with one verdict.

pub(super) mod args;
mod keys;
mod pictures;
mod runs;
mod timing;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};

use self::args::{AbArgs, Manner};
use self::keys::Key;
use self::runs::Contender;
use self::timing::Timed;
use super::propose::Proposer;
use super::run::describe;
use super::score::Scorer;
use super::signals::Interrupt;
use super::survey::survey;
use super::{complain, say, texts};
use crate::bench::machine::Machine;
use crate::bench::rounds::{self, Length};
use crate::bench::table::Style;
use crate::bundle::{Bundle, MANIFEST_FILE};
use crate::cli::outputs::default_out;
use crate::compare::finds::{self, TextFound, TextRun};
use crate::compare::report::{AB_VERSION, AbReport, ClipReport, Protocol, VariantReport};
use crate::compare::require::{self, Given, Requirement};
use crate::compare::{agreement, frames, page, table, variant, verdict};
use crate::media::{self, SourceInfo};
use crate::output::{StagedFile, Unfinished};
use crate::prompts::{FlagPrompt, PromptError, Prompts};
use crate::scoring::ground_truth::GroundTruth;
use crate::session::report::{PromptReport, RunReport, TracksReader};

/// The folder with each variant's run.
const VARIANTS: &str = "variants";

/// What is still to be done, for the message of a sudden end.
#[derive(Clone, Default)]
struct Missing(Arc<Mutex<Vec<String>>>);

impl Missing {
    fn set(&self, parts: impl IntoIterator<Item = String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = parts.into_iter().collect();
    }

    fn done(&self, part: &str) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|known| known != part);
    }

    fn text(&self) -> String {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.join(", ")
    }
}

/// Everything about a comparison that is known before its first run.
struct Setup<'a> {
    args: &'a AbArgs,
    flags: &'a [FlagPrompt],
    out: PathBuf,
    info: SourceInfo,
    clip_sha256: String,
    prompts: Vec<PromptReport>,
    objects: usize,
    truth: Option<GroundTruth>,
    contenders: Vec<Contender>,
    requirements: Vec<Requirement>,
    length: Length,
    /// What is to be known of blocks without as many looks as others.
    uneven: Option<String>,
    unfinished: Unfinished,
    missing: Missing,
}

/// Runs the command; returns whether all requirements are met.
pub(super) fn run(args: &AbArgs, flags: &[FlagPrompt]) -> Result<bool> {
    let unfinished = Unfinished::default();
    let missing = Missing::default();
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| default_out(&args.input, "ab-"));
    let (told, place) = (missing.clone(), out.display().to_string());
    // A signal ends this program at once, and its processes with it; what is complete stays.
    let _interrupt = Interrupt::install_saying(&unfinished, move || match told.text().as_str() {
        "" => "nothing was kept".to_owned(),
        parts => format!(
            "still missing: {parts}; what is complete is kept in {place}, and the same command goes on from there"
        ),
    })?;
    let setup = prepare(args, flags, out, unfinished, missing)?;
    let page = StagedFile::create(
        &setup.out.join("index.html"),
        args.overwrite,
        &setup.unfinished,
    )?;
    let json = StagedFile::create(
        &setup.out.join("report.json"),
        args.overwrite,
        &setup.unfinished,
    )?;

    let ran = run_all(&setup)?;
    let timed = time_all(&setup, &ran)?;
    let mut report = compose(&setup, ran, timed)?;
    let pictures = pictures::make(
        &args.input,
        &report.shown,
        &report.variants,
        setup.truth.as_ref(),
        &setup.out,
    )?;
    report.shown.truncate(pictures.len());

    let mut text = serde_json::to_string_pretty(&report)?;
    text.push('\n');
    for (file, text) in [(json, text), (page, page::render(&report, &pictures))] {
        std::fs::write(file.path(), text)
            .with_context(|| format!("cannot write {}", file.file().display()))?;
        file.commit()?;
    }
    setup.missing.done("the report");
    remove_stale(&setup);
    say(table::render(&report, Style::Plain).trim_end());
    say(&format!(
        "page     {}",
        setup.out.join("index.html").display()
    ));
    say(&format!(
        "report   {}",
        setup.out.join("report.json").display()
    ));
    let failed: Vec<&str> = report
        .variants
        .iter()
        .filter(|variant| variant.error.is_some())
        .map(|variant| variant.name.as_str())
        .collect();
    // A gate says no; but of nothing that ran it says nothing.
    let unmet = report
        .requirements
        .iter()
        .any(|requirement| !requirement.met);
    if unmet && failed.len() < report.variants.len() {
        return Ok(false);
    }
    if !failed.is_empty() {
        bail!(
            "{} failed, the report in {} says why; the same command with --overwrite tries again and uses what is there",
            failed.join(", "),
            setup.out.display()
        );
    }
    Ok(true)
}

/// As it was typed, but for where the program lies.
fn command_line() -> Vec<String> {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut() {
        let name = Path::new(program.as_str())
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        *program = name.unwrap_or_else(|| program.clone());
    }
    words
}

/// Checks everything that can be checked: what is wrong for all variants alike is an error now, not in each of their runs.
fn prepare<'a>(
    args: &'a AbArgs,
    flags: &'a [FlagPrompt],
    out: PathBuf,
    unfinished: Unfinished,
    missing: Missing,
) -> Result<Setup<'a>> {
    let variants = variant::parse_all(&args.variants)?;
    let given = Given {
        truth: args.gt.is_some(),
        finds: args.finds(),
    };
    let requirements = require::parse(&args.require, &variants, given)?;
    let prompts = prompts(args, flags, given.finds)?;
    let digest = Proposer::digest(&args.proposals.graph)?;
    let info = media::open(&args.input)?.info().clone();
    let mut pointers = 0;
    let mut ways = Vec::with_capacity(variants.len());
    for variant in &variants {
        let of_it = || format!("--variant {}={}", variant.name, variant.model.display());
        let manifest = Bundle::peek(&variant.model).with_context(of_it)?;
        pointers = pointers.max(manifest.policy.max_object_pointers as usize);
        let manner = Manner::of(variant, args);
        let detecting = manner.check(variant, &manifest).with_context(of_it)?;
        ways.push((manner, detecting));
    }
    check_out(args, &out)?;
    let most = args.max_frames.map(Into::into);
    let truth = match &args.gt {
        Some(dir) => Some(GroundTruth::open(dir, &info, most)?),
        None => None,
    };
    survey(&args.input, most, &info, &prompts, truth.as_ref(), pointers)?;
    let first_frames = prompts.first_frames();
    if let (Some(truth), false) = (&truth, given.finds) {
        for note in Scorer::plan(truth.clone(), &first_frames)?.notes() {
            complain(&format!("warning: {note}"));
        }
    }
    for note in &info.notes {
        complain(&format!("warning: {note}"));
    }
    let periods = ways.iter().map(|(manner, _)| manner.every());
    let (block, uneven) = match rounds::even_block(args.block.get(), periods) {
        Ok(block) => (block, None),
        Err(why) => (args.block.get(), Some(why)),
    };
    let length = Length {
        // Only then do all objects take their time, and their memories.
        warm: prompts.last_frame() + args.warm.get() - 1,
        rounds: args.rounds.get(),
        block,
    };

    let clip_sha256 = keys::of_clip(&info)?;
    let prompts = prompts.into_frames();
    let mut common = Key::default();
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    common.add("program", env!("CARGO_PKG_VERSION"));
    common.add("program's file", &keys::of_file(&program)?);
    common.add("clip", &clip_sha256);
    common.add("frames", &format!("{most:?}"));
    keys::add_prompts(&mut common, prompts.values().flatten());
    if let Some(digest) = digest {
        common.add("proposals", &digest);
    }
    if let Some(dir) = &args.gt {
        common.add("ground truth", &keys::of_folder(dir)?);
    }
    let mut contenders = Vec::with_capacity(variants.len());
    for (variant, (manner, detecting)) in variants.into_iter().zip(ways) {
        let mut key = common.clone();
        keys::add_variant(&mut key, &variant.model, detecting.as_deref(), &manner)?;
        let key = key.text();
        contenders.push(Contender {
            folder: Path::new(VARIANTS).join(&variant.name).join(&key),
            variant,
            manner,
            key,
        });
    }
    Ok(Setup {
        args,
        flags,
        out,
        info,
        clip_sha256,
        prompts: describe(&prompts),
        objects: first_frames.len(),
        truth,
        contenders,
        requirements,
        length,
        uneven,
        unfinished,
        missing,
    })
}

/// The prompts; none where variants find their objects.
fn prompts(args: &AbArgs, flags: &[FlagPrompt], finds: bool) -> Result<Prompts> {
    let texts = !args.text.texts.is_empty();
    if texts && args.proposals.graph.proposals.is_some() {
        bail!(texts::NOT_WITH_PROPOSALS);
    }
    match Prompts::load(flags, args.prompting.prompts.as_deref()) {
        Err(PromptError::None) if finds => Ok(Prompts::none()),
        Ok(_) if texts => bail!(texts::NOT_WITH_PROMPTS),
        Ok(_) if finds => bail!(
            "ab compares objects of prompts by their ids, and proposed ones by their masks: give either --proposals or prompts"
        ),
        other => Ok(other?),
    }
}

/// What is read must not lie in what may be removed, and a bundle stays what it is.
fn check_out(args: &AbArgs, out: &Path) -> Result<()> {
    if out.join(MANIFEST_FILE).exists() {
        bail!("--out {} is a bundle; give another folder", out.display());
    }
    let Ok(taken) = out.join(VARIANTS).canonicalize() else {
        return Ok(());
    };
    let read = [
        ("the input", Some(&args.input)),
        ("--gt", args.gt.as_ref()),
        ("--prompts", args.prompting.prompts.as_ref()),
        ("--proposals", args.proposals.graph.proposals.as_ref()),
    ];
    for (what, path) in read {
        let inside = path.and_then(|path| path.canonicalize().ok());
        if let (Some(path), true) = (path, inside.is_some_and(|real| real.starts_with(&taken))) {
            bail!(
                "{what} {} lies in {}, which --out replaces; give another --out, or copy it elsewhere first",
                path.display(),
                out.join(VARIANTS).display()
            );
        }
    }
    Ok(())
}

/// Each variant's run, or why there is none.
fn run_all(setup: &Setup<'_>) -> Result<Vec<Result<RunReport, String>>> {
    let args = setup.args;
    let part = |contender: &Contender| format!("the run of {}", contender.variant.name);
    let rest = ["the timing".to_owned(), "the report".to_owned()];
    setup
        .missing
        .set(setup.contenders.iter().map(part).chain(rest));
    let most = args.max_frames.map(|most| most.get() as u64);
    let frames = match (setup.info.frames_hint, most) {
        (Some(hint), Some(most)) => Some(hint.min(most)),
        (hint, _) => hint,
    };
    let mut ran = Vec::with_capacity(setup.contenders.len());
    for contender in &setup.contenders {
        let dir = setup.out.join(&contender.folder);
        let kept = if args.fresh { None } else { runs::kept(&dir) };
        let name = &contender.variant.name;
        ran.push(match kept {
            Some(report) => {
                if !args.quiet {
                    complain(&format!("{name}: its run is there already"));
                }
                Ok(report)
            }
            None => runs::make(contender, args, setup.flags, &dir, frames)
                .map_err(|error| super::chain(&error)),
        });
        if let Some(Err(error)) = ran.last() {
            complain(&format!("warning: {name} failed: {error}"));
        }
        setup.missing.done(&part(contender));
    }
    Ok(ran)
}

/// Times those variants that have a run.
fn time_all(setup: &Setup<'_>, ran: &[Result<RunReport, String>]) -> Result<Timed> {
    let pairs = setup.contenders.iter().zip(ran);
    let able: Vec<&Contender> = pairs
        .filter(|(_, run)| run.is_ok())
        .map(|(contender, _)| contender)
        .collect();
    if able.is_empty() {
        return Ok(Vec::new());
    }
    let (args, out) = (setup.args, &setup.out);
    let key = timing::key(&able, setup.length);
    let kept = match args.fresh {
        true => None,
        false => timing::kept(out, &key, &able),
    };
    let timed = match kept {
        Some(timed) => {
            if !args.quiet {
                complain("timing: it is there already (--fresh measures again)");
            }
            timed
        }
        None => timing::make(
            &able,
            args,
            setup.flags,
            setup.length,
            out,
            key,
            &setup.unfinished,
        )?,
    };
    setup.missing.done("the timing");
    Ok(timed)
}

fn compose(
    setup: &Setup<'_>,
    ran: Vec<Result<RunReport, String>>,
    timed: Timed,
) -> Result<AbReport> {
    let args = setup.args;
    let mut timed = timed.into_iter();
    let frames = ran
        .iter()
        .flatten()
        .map(|run| run.frames)
        .max()
        .unwrap_or(0);
    let mut variants: Vec<VariantReport> = Vec::with_capacity(ran.len());
    for (contender, run) in setup.contenders.iter().zip(ran) {
        let (run, timing, error) = match run {
            Err(error) => (None, None, Some(error)),
            Ok(run) => {
                let run = Some(runs::summary(run, &setup.out, &contender.folder)?);
                match timed.next() {
                    Some(Ok(arm)) => (run, Some(arm), None),
                    Some(Err(error)) => (run, None, Some(error)),
                    None => (run, None, None),
                }
            }
        };
        variants.push(VariantReport {
            name: contender.variant.name.clone(),
            dir: contender.variant.model.display().to_string(),
            provider: contender.manner.runtime.provider.to_string(),
            error,
            run,
            agreement: None,
            finds: None,
            timing,
            speedup: None,
        });
    }
    relate(setup, &mut variants)?;
    let worst = frames::worst_per_frame(&variants);
    let mut verdict = verdict::verdict(&variants);
    verdict.warnings.extend(setup.uneven.clone());
    let proposals = args.proposals.graph.proposals.as_ref();
    Ok(AbReport {
        schema_version: AB_VERSION,
        snow_ort: env!("CARGO_PKG_VERSION").to_owned(),
        command: command_line(),
        machine: Machine::here(),
        clip: ClipReport {
            path: args.input.display().to_string(),
            sha256: setup.clip_sha256.clone(),
            frames,
            width: setup.info.width,
            height: setup.info.height,
        },
        prompts: setup.prompts.clone(),
        texts: texts::distinct(&args.text.texts)
            .into_iter()
            .map(str::to_owned)
            .collect(),
        proposals: proposals.map(|file| file.display().to_string()),
        objects: variants
            .first()
            .and_then(VariantReport::found)
            .unwrap_or(setup.objects as u64),
        ground_truth: args.gt.as_ref().map(|dir| dir.display().to_string()),
        protocol: Protocol {
            warm_frames: setup.length.warm + 1,
            rounds: setup.length.rounds,
            block_frames: setup.length.block,
        },
        verdict,
        requirements: setup
            .requirements
            .iter()
            .map(|requirement| requirement.judge(&variants))
            .collect(),
        shown: match variants.iter().any(|variant| variant.run.is_some()) {
            true => frames::choose(frames, &worst, args.page_frames),
            false => Vec::new(),
        },
        variants,
    })
}

/// Compares masks and times of all others with the baseline's.
fn relate(setup: &Setup<'_>, variants: &mut [VariantReport]) -> Result<()> {
    let Some((baseline, others)) = variants.split_first_mut() else {
        return Ok(());
    };
    let tracks = |variant: &VariantReport| {
        let run = variant.run.as_ref()?;
        Some(setup.out.join(&run.folder).join(runs::TRACKS_FILE))
    };
    let of_texts = |variant: &VariantReport| -> Vec<TextFound> {
        variant
            .run
            .iter()
            .flat_map(|run| run.texts.clone())
            .collect()
    };
    let open = |path: &Path| {
        TracksReader::open(path).with_context(|| format!("cannot read {}", path.display()))
    };
    for variant in others {
        variant.speedup = verdict::ratio(baseline, variant);
        let (Some(theirs), Some(ours)) = (tracks(baseline), tracks(variant)) else {
            continue;
        };
        if !setup.args.finds() {
            variant.agreement = agreement::compare(open(&theirs)?, open(&ours)?)?;
            continue;
        }
        let run = |tracks, texts| TextRun { tracks, texts };
        let (found, expected) = (of_texts(variant), of_texts(baseline));
        let (finds, agreement) = finds::compare(run(&theirs, &expected), run(&ours, &found))?;
        (variant.finds, variant.agreement) = (Some(finds), agreement);
    }
    Ok(())
}

/// Removes runs of these variants that do not hold any more. What cannot be removed does no harm.
fn remove_stale(setup: &Setup<'_>) {
    for contender in &setup.contenders {
        let dir = setup.out.join(VARIANTS).join(&contender.variant.name);
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if keys::is_key(&name) && name != contender.key {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}
