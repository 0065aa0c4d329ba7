//! How a comparison was made, for the end of the page.

use crate::compare::picture::GROUND_TRUTH;
use crate::compare::report::{AbReport, VariantReport};
use crate::compare::verdict::{J_AND_F_MARGIN, MIN_IOU};
use crate::scoring::matching::SAME;

/// The parts of the description, each with its name.
pub(super) fn method(report: &AbReport) -> Vec<(String, String)> {
    let mut entries = vec![
        ("machine", report.machine.text()),
        ("times", times(report)),
        ("masks", masks(report)),
        ("verdict", verdict(report)),
        ("clip", format!("SHA-256 {}", report.clip.sha256)),
        ("program", format!("snow-ort {}", report.snow_ort)),
        ("command", report.command.join(" ")),
    ];
    if report.finds_objects() {
        entries.push(("objects", objects(report)));
    }
    let entries = entries.into_iter();
    let variants = report.variants.iter();
    entries
        .map(|(name, text)| (name.to_owned(), text))
        .chain(variants.map(|v| (format!("variant {}", v.name), variant(v))))
        .collect()
}

fn times(report: &AbReport) -> String {
    let protocol = &report.protocol;
    format!(
        "Each variant runs in its own process and tracks {} frames to warm up. Then {} rounds go through all variants, every \
         second one backwards, with {} frames of each variant in a round. A time is that from the resized image to the \
         low-resolution masks and memories of all objects. A speedup is the median of the ratios of the rounds; its interval \
         is a bootstrap over rounds.",
        protocol.warm_frames, protocol.rounds, protocol.block_frames
    )
}

fn masks(report: &AbReport) -> String {
    let truth = match &report.ground_truth {
        Some(_) => format!("; J and F as in DAVIS 2017; {GROUND_TRUTH} as given"),
        None => String::new(),
    };
    format!("`snow-ort run` of each variant over the whole clip{truth}")
}

fn verdict(report: &AbReport) -> String {
    format!(
        "The fastest variant with good masks. Masks are good if their J&F is at most {J_AND_F_MARGIN} below the best; without \
         ground truth, if their mean IoU with the baseline is at least {MIN_IOU} and no object is lost{}.",
        if report.finds_objects() {
            ", missed or extra"
        } else {
            ""
        }
    )
}

fn objects(report: &AbReport) -> String {
    let (within, truth, parts) = match &report.proposals {
        None => (
            " within a text",
            ", over all texts",
            "detector, association and tracker",
        ),
        Some(_) => ("", "", "the graph that proposes objects, and the tracker"),
    };
    format!(
        "Each variant finds its objects by itself and numbers them by itself. Objects of two runs are matched{within} by their \
         masks, each with at most one: pairs with a higher mean IoU over the frames on which either is shown come first, and \
         their mean IoU over the frames on which both are shown must be at least {SAME}. Objects of the ground truth are matched \
         in the same way{truth}. A time is that of the whole loop: {parts}."
    )
}

fn variant(variant: &VariantReport) -> String {
    let Some(run) = &variant.run else {
        return variant.dir.clone();
    };
    let timing = variant.timing.as_ref();
    format!(
        "{}: {}, manifest {}, chunk {}{}",
        variant.dir,
        variant.what(),
        run.model.manifest_sha256.get(..12).unwrap_or_default(),
        run.runtime.chunk,
        timing.map_or(String::new(), |timing| format!("; {}", timing.ready.what)),
    )
}
