//! Inputs and outputs of the detector's graphs.

use super::expected::{Axis, ExpectedType, Feed, Table, feed};
use super::manifest::{DType, DetectorSpec, Manifest, Role};
use Role::{Detector, DetectorFeatures, DetectorMasks, GeometryEncoder, TextEncoder};

/// Outputs that are fed to another graph without a conversion.
pub(super) const FEEDS: [Feed; 11] = [
    feed(
        Role::VisionEncoder,
        "backbone_nlc",
        DetectorFeatures,
        "backbone_nlc",
    ),
    feed(
        DetectorFeatures,
        "level_0_nchw",
        DetectorMasks,
        "level_0_nchw",
    ),
    feed(
        DetectorFeatures,
        "level_1_nchw",
        DetectorMasks,
        "level_1_nchw",
    ),
    feed(
        DetectorFeatures,
        "level_2_nchw",
        GeometryEncoder,
        "level_2_nchw",
    ),
    feed(DetectorFeatures, "level_2_nchw", Detector, "level_2_nchw"),
    feed(TextEncoder, "text_nlc", Detector, "prompt_nlc"),
    feed(TextEncoder, "text_nlc", DetectorMasks, "prompt_nlc"),
    feed(GeometryEncoder, "geometry_nlc", Detector, "prompt_nlc"),
    feed(GeometryEncoder, "geometry_nlc", DetectorMasks, "prompt_nlc"),
    feed(Detector, "queries_qc", DetectorMasks, "queries_qc"),
    feed(Detector, "encoded_nlc", DetectorMasks, "encoded_nlc"),
];

/// Adds the inputs and outputs of a detector's graphs.
pub(super) fn add(table: &mut Table, manifest: &Manifest, detector: &DetectorSpec) {
    use Axis::{Dynamic, Shared, Size};
    let float = ExpectedType::Float;
    let float32 = ExpectedType::Is(DType::Float32);
    let int64 = ExpectedType::Is(DType::Int64);
    let grid = u64::from(manifest.grid);
    let tokens = Size(manifest.memory.tokens.into());
    let hidden = Size(detector.hidden.into());
    let queries = Size(detector.queries.into());
    let level = |scale: u64| [Size(1), hidden, Size(scale * grid), Size(scale * grid)];
    let backbone = [Size(1), tokens, Shared("backbone channels")];
    let encoded = [Size(1), tokens, hidden];
    let text = [Size(1), Dynamic("tokens"), hidden];
    let masks = [Dynamic("found"), Size(4 * grid), Size(4 * grid)];

    table
        .graph(Role::VisionEncoder)
        .output("backbone_nlc", float, &backbone);
    table
        .graph(TextEncoder)
        .input("token_ids", int64, &[Size(1), Dynamic("tokens")])
        .output("text_nlc", float, &text);
    table
        .graph(DetectorFeatures)
        .input("backbone_nlc", float, &backbone)
        .output("level_0_nchw", float, &level(4))
        .output("level_1_nchw", float, &level(2))
        .output("level_2_nchw", float, &level(1));
    table
        .graph(GeometryEncoder)
        .input("level_2_nchw", float, &level(1))
        .input("boxes", float32, &[Size(1), Dynamic("boxes"), Size(4)])
        .input("box_labels", int64, &[Size(1), Dynamic("boxes")])
        .output("geometry_nlc", float, &text);
    table
        .graph(Detector)
        .input("level_2_nchw", float, &level(1))
        .input("prompt_nlc", float, &text)
        .output("boxes", float32, &[queries, Size(4)])
        .output("scores", float32, &[queries])
        .output("queries_qc", float, &[queries, hidden])
        .output("encoded_nlc", float, &encoded);
    table
        .graph(DetectorMasks)
        .input("level_0_nchw", float, &level(4))
        .input("level_1_nchw", float, &level(2))
        .input("encoded_nlc", float, &encoded)
        .input("prompt_nlc", float, &text)
        .input("queries_qc", float, &[Dynamic("found"), hidden])
        .output("mask_logits", float32, &masks);
}
