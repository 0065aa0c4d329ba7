//! Comparing masks of the drawn clip: whether to, and the processes that follow it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::DoctorArgs;
use super::trial::{Clip, Launch, start};
use crate::bundle::{Bundle, Manifest, Precision};
use crate::cli::complain;
use crate::doctor::clip::{self, Followed};
use crate::doctor::facts::{Facts, Failure, FailureKind, NotCompared, ProviderFacts};
use crate::doctor::masks;
use crate::runtime::Provider;

/// Compares the masks of each provider that serves with the processor's, and enters what came of it.
pub(super) fn compare(
    args: &DoctorArgs,
    facts: &mut Facts,
    desk: &Path,
    terminal: bool,
) -> Result<()> {
    if args.no_compare {
        return Ok(());
    }
    let plan = match plan(args.compare, facts) {
        Ok(plan) => plan,
        Err(not) => {
            facts.not_compared = not;
            return Ok(());
        }
    };
    let mut expected = None;
    for provider in [Provider::Cpu, plan.provider] {
        if terminal {
            complain(&format!("following the drawn clip on {provider} …"));
        }
        let file = desk.join(format!("{provider}.safetensors"));
        let launch = Launch {
            provider,
            library: &plan.library,
            bundle: Some(&plan.dir),
            budget: None,
            timeout: Duration::from_secs(args.timeout),
            clip: Some(Clip {
                file: &file,
                frames: plan.frames,
            }),
        };
        let ended = start(args, &launch, desk, &mut facts.library)?;
        let followed = match ended.failure {
            None => clip::read(&file).map_err(|reason| Failure {
                during: "reading the masks of the drawn clip".to_owned(),
                kind: FailureKind::Error,
                reason,
            }),
            Some(failure) => Err(failure),
        };
        let Some(tried) = of(facts, provider) else {
            return Ok(());
        };
        match (followed, &expected) {
            (Err(failure), _) => {
                tried.clip_failure = Some(failure);
                return Ok(());
            }
            (Ok(followed), None) => expected = Some(followed),
            (Ok(followed), Some(expected)) => held(&plan, tried, &followed, expected),
        }
    }
    Ok(())
}

/// Holds what a provider made of the clip against what the processor did.
fn held(plan: &Plan, tried: &mut ProviderFacts, got: &Followed, expected: &Followed) {
    let manifest = &plan.manifest;
    let limit = masks::limit(manifest.precision, manifest.source.random_weights);
    let threshold = manifest.masks.threshold as f32;
    match masks::facts(got, &expected.alone, threshold, limit) {
        Ok(masks) => tried.masks = Some(masks),
        Err(reason) => {
            tried.clip_failure = Some(Failure {
                during: "comparing the masks of the drawn clip".to_owned(),
                kind: FailureKind::Error,
                reason,
            });
        }
    }
}

fn of(facts: &mut Facts, provider: Provider) -> Option<&mut ProviderFacts> {
    let name = provider.to_string();
    let mut all = facts.providers.iter_mut();
    all.find(|tried| tried.provider == name)
}

/// What to compare.
struct Plan {
    provider: Provider,
    library: std::path::PathBuf,
    dir: std::path::PathBuf,
    manifest: Manifest,
    frames: usize,
}

/// What to compare, or why not; nothing to say of it where nobody asked and something else is said already.
fn plan(asked: bool, facts: &Facts) -> Result<Plan, Option<NotCompared>> {
    let not = |why: String, fix: &str| {
        Some(NotCompared {
            asked,
            why,
            fix: fix.to_owned(),
        })
    };
    let if_asked = |why: &str, fix: &str| match asked {
        true => not(why.to_owned(), fix),
        false => None,
    };
    let works = |provider: Provider| {
        let name = provider.to_string();
        let mut all = facts.providers.iter();
        all.any(|tried| {
            tried.provider == name
                && tried.serves
                && tried.failure.is_none()
                && tried.graphs.iter().all(|graph| graph.failure.is_none())
        })
    };
    if !works(Provider::Cuda) {
        return Err(if_asked(
            "no provider but the processor runs the bundle here, and the processor is not compared with itself",
            "run it where a GPU serves (the other findings say what is missing here), or leave --compare out",
        ));
    }
    if !works(Provider::Cpu) {
        return Err(if_asked(
            "the processor does not run the bundle",
            "see the other findings",
        ));
    }
    let usable = facts
        .bundle
        .as_ref()
        .filter(|bundle| bundle.failure.is_none());
    let manifest = usable.and_then(|bundle| Bundle::peek(&bundle.dir).ok());
    let (Some(bundle), Some(manifest), Some(library)) = (usable, manifest, &facts.library.path)
    else {
        return Err(if_asked("there is no bundle", "give one with --model DIR"));
    };
    let dir = bundle.dir.clone();
    if manifest.precision == Precision::Int8 {
        return Err(not(
            format!(
                "{} is int8, which runs on the processor only",
                dir.display()
            ),
            "compare with a bundle in fp16 or fp32",
        ));
    }
    let small = clip::is_small(&manifest);
    if !small && !asked {
        return Err(not(
            format!(
                "{} is large, and following a clip with it on the processor may take minutes",
                dir.display()
            ),
            "compare with --compare, or with a small bundle (--model models/snow-tiny/snow-tiny-336-fp16)",
        ));
    }
    Ok(Plan {
        provider: Provider::Cuda,
        library: library.clone(),
        dir,
        frames: match small {
            true => clip::FRAMES,
            false => clip::FEW_FRAMES,
        },
        manifest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::{BundleFacts, LibraryFacts};

    fn serving(names: &[&str]) -> Facts {
        let provider = |name: &&str| ProviderFacts {
            provider: (*name).to_owned(),
            serves: true,
            ..ProviderFacts::default()
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        Facts {
            providers: names.iter().map(provider).collect(),
            library: LibraryFacts {
                path: Some("libonnxruntime.so".into()),
                ..LibraryFacts::default()
            },
            bundle: Some(BundleFacts {
                dir: root.join("models/snow-tiny/snow-tiny-336-fp16"),
                ..BundleFacts::default()
            }),
            ..Facts::default()
        }
    }

    #[test]
    fn the_processor_is_not_compared_with_itself() {
        assert_eq!(plan(false, &serving(&["cpu"])).err(), Some(None));
        let not = plan(true, &serving(&["cpu"])).err().flatten().unwrap();
        assert!(not.asked);
        assert!(not.why.contains("itself"), "{not:?}");
    }

    #[test]
    fn a_small_bundle_is_compared_without_being_asked() {
        let both = serving(&["cpu", "cuda"]);
        for asked in [false, true] {
            let planned = plan(asked, &both).ok().unwrap();
            assert_eq!(planned.frames, clip::FRAMES);
            assert_eq!(planned.provider, Provider::Cuda);
        }
        let mut none = both;
        none.bundle = None;
        assert_eq!(plan(false, &none).err(), Some(None));
        assert!(plan(true, &none).err().flatten().is_some());
    }
}
