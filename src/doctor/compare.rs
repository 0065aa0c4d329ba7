//! Compares the masks of the drawn clip on a GPU with the processor's: whether to, and with which bundle and frames.

use std::path::{Path, PathBuf};

use super::clip::{self, ClipLogits};
use super::facts::{Facts, Failure, FailureKind, NotCompared, ProviderFacts};
use super::masks;
use super::trial::{ClipConfig, TrialConfig, TrialOutput, facts_from};
use crate::bundle::{Bundle, Manifest, Precision};
use crate::runtime::Provider;

/// When masks are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Never.
    Never,
    /// If it takes seconds: with a small bundle.
    IfQuick,
    /// Always.
    Always,
}

/// Tracks the drawn clip on the processor and on each other provider that works, and adds the comparison to `facts`.
///
/// `config` gives what all trials have in common; `run_trial` runs a trial in a separate process. Files are written to `folder`.
///
/// # Errors
/// Those of `run_trial`.
pub fn compare<E>(
    when: Compare,
    config: &TrialConfig,
    folder: &Path,
    facts: &mut Facts,
    run_trial: &mut impl FnMut(&TrialConfig) -> Result<TrialOutput, E>,
) -> Result<(), E> {
    if when == Compare::Never {
        return Ok(());
    }
    let plan = match plan(when == Compare::Always, facts) {
        Ok(plan) => plan,
        Err(reason) => {
            facts.not_compared = reason;
            return Ok(());
        }
    };
    let mut expected = None;
    for provider in [Provider::Cpu, plan.provider] {
        let file = folder.join(format!("{provider}.safetensors"));
        let config = TrialConfig {
            events: folder.join(format!("{provider}-clip.jsonl")),
            provider,
            bundle: Some(plan.dir.clone()),
            budget_bytes: None,
            clip: Some(ClipConfig {
                file: file.clone(),
                frames: plan.frames,
            }),
            ..config.clone()
        };
        let output = run_trial(&config)?;
        let logits = match facts_from(provider, &output, &mut facts.library).failure {
            None => clip::read(&file).map_err(|reason| Failure {
                during: "reading the masks of the drawn clip".to_owned(),
                kind: FailureKind::Error,
                reason,
            }),
            Some(failure) => Err(failure),
        };
        let Some(tried) = facts_of(facts, provider) else {
            return Ok(());
        };
        match (logits, &expected) {
            (Err(failure), _) => {
                tried.clip_failure = Some(failure);
                return Ok(());
            }
            (Ok(logits), None) => expected = Some(logits),
            (Ok(logits), Some(expected)) => add_masks(&plan, tried, &logits, expected),
        }
    }
    Ok(())
}

/// Adds the comparison of a provider's logits with the processor's to its facts.
fn add_masks(plan: &Plan, tried: &mut ProviderFacts, got: &ClipLogits, expected: &ClipLogits) {
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

fn facts_of(facts: &mut Facts, provider: Provider) -> Option<&mut ProviderFacts> {
    let name = provider.to_string();
    let mut all = facts.providers.iter_mut();
    all.find(|tried| tried.provider == name)
}

/// What is compared.
struct Plan {
    /// The provider to compare with the processor.
    provider: Provider,
    /// The bundle's folder.
    dir: PathBuf,
    manifest: Manifest,
    /// Number of frames.
    frames: usize,
}

/// What to compare, or why masks are not compared. The reason is `None` if the user did not ask for the comparison and another
/// finding explains the problem.
fn plan(asked: bool, facts: &Facts) -> Result<Plan, Option<NotCompared>> {
    let because = |why: String, fix: &str| {
        Some(NotCompared {
            asked,
            why,
            fix: fix.to_owned(),
        })
    };
    let if_asked = |why: &str, fix: &str| match asked {
        true => because(why.to_owned(), fix),
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
            "only the processor runs the bundle here, and it is not compared with itself",
            "run it on a machine with a working GPU (the other findings say what is missing here), or leave --compare out",
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
    let (Some(bundle), Some(manifest)) = (usable, manifest) else {
        return Err(if_asked("there is no bundle", "give one with --model DIR"));
    };
    let dir = bundle.dir.clone();
    if manifest.precision == Precision::Int8 {
        return Err(because(
            format!(
                "{} is int8, which runs on the processor only",
                dir.display()
            ),
            "compare with a bundle in fp16 or fp32",
        ));
    }
    let small = clip::is_small(&manifest);
    if !small && !asked {
        return Err(because(
            format!(
                "{} is large, and tracking a clip with it on the processor may take minutes",
                dir.display()
            ),
            "compare with --compare, or with a small bundle (--model models/snow-tiny/snow-tiny-336-fp16)",
        ));
    }
    Ok(Plan {
        provider: Provider::Cuda,
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
    use crate::doctor::facts::BundleFacts;

    fn serving(names: &[&str]) -> Facts {
        let provider = |name: &&str| ProviderFacts {
            provider: (*name).to_owned(),
            serves: true,
            ..ProviderFacts::default()
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        Facts {
            providers: names.iter().map(provider).collect(),
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
        let reason = plan(true, &serving(&["cpu"])).err().flatten().unwrap();
        assert!(reason.asked);
        assert!(reason.why.contains("itself"), "{reason:?}");
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
