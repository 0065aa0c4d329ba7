//! The tensors that the detector's graphs take and give, as rows of the table in `interface`.

use super::interface::{Axis, Feed, Kind, Row};
use super::{DType, Detector, Manifest, Role};

/// Outputs that are fed to another graph without a conversion.
pub(super) const FEEDS: [Feed; 11] = [
    (
        Role::VisionEncoder,
        "backbone_nlc",
        Role::DetectorFeatures,
        "backbone_nlc",
    ),
    (
        Role::DetectorFeatures,
        "level_0_nchw",
        Role::DetectorMasks,
        "level_0_nchw",
    ),
    (
        Role::DetectorFeatures,
        "level_1_nchw",
        Role::DetectorMasks,
        "level_1_nchw",
    ),
    (
        Role::DetectorFeatures,
        "level_2_nchw",
        Role::GeometryEncoder,
        "level_2_nchw",
    ),
    (
        Role::DetectorFeatures,
        "level_2_nchw",
        Role::Detector,
        "level_2_nchw",
    ),
    (Role::TextEncoder, "text_nlc", Role::Detector, "prompt_nlc"),
    (
        Role::TextEncoder,
        "text_nlc",
        Role::DetectorMasks,
        "prompt_nlc",
    ),
    (
        Role::GeometryEncoder,
        "geometry_nlc",
        Role::Detector,
        "prompt_nlc",
    ),
    (
        Role::GeometryEncoder,
        "geometry_nlc",
        Role::DetectorMasks,
        "prompt_nlc",
    ),
    (
        Role::Detector,
        "queries_qc",
        Role::DetectorMasks,
        "queries_qc",
    ),
    (
        Role::Detector,
        "encoded_nlc",
        Role::DetectorMasks,
        "encoded_nlc",
    ),
];

/// What the graphs of a detector take and give.
pub(super) fn rows(manifest: &Manifest, detector: &Detector) -> Vec<Row> {
    use Axis::{Dynamic, Is, Same};
    use Role::{DetectorFeatures, DetectorMasks, GeometryEncoder, TextEncoder, VisionEncoder};

    let (float, float32, int64) = (
        Kind::Float,
        Kind::Is(DType::Float32),
        Kind::Is(DType::Int64),
    );
    let grid = u64::from(manifest.grid);
    let tokens = Is(manifest.memory.tokens.into());
    let hidden = Is(detector.hidden.into());
    let queries = Is(detector.queries.into());
    let level = |scale: u64| vec![Is(1), hidden, Is(scale * grid), Is(scale * grid)];
    let backbone = vec![Is(1), tokens, Same("backbone channels")];
    let encoded = vec![Is(1), tokens, hidden];
    let text = vec![Is(1), Dynamic("tokens"), hidden];
    let rows = [
        (
            VisionEncoder,
            false,
            "backbone_nlc",
            float,
            backbone.clone(),
        ),
        (
            TextEncoder,
            true,
            "token_ids",
            int64,
            vec![Is(1), Dynamic("tokens")],
        ),
        (TextEncoder, false, "text_nlc", float, text.clone()),
        (DetectorFeatures, true, "backbone_nlc", float, backbone),
        (DetectorFeatures, false, "level_0_nchw", float, level(4)),
        (DetectorFeatures, false, "level_1_nchw", float, level(2)),
        (DetectorFeatures, false, "level_2_nchw", float, level(1)),
        (GeometryEncoder, true, "level_2_nchw", float, level(1)),
        (
            GeometryEncoder,
            true,
            "boxes",
            float32,
            vec![Is(1), Dynamic("boxes"), Is(4)],
        ),
        (
            GeometryEncoder,
            true,
            "box_labels",
            int64,
            vec![Is(1), Dynamic("boxes")],
        ),
        (GeometryEncoder, false, "geometry_nlc", float, text.clone()),
        (Role::Detector, true, "level_2_nchw", float, level(1)),
        (Role::Detector, true, "prompt_nlc", float, text.clone()),
        (
            Role::Detector,
            false,
            "boxes",
            float32,
            vec![queries, Is(4)],
        ),
        (Role::Detector, false, "scores", float32, vec![queries]),
        (
            Role::Detector,
            false,
            "queries_qc",
            float,
            vec![queries, hidden],
        ),
        (Role::Detector, false, "encoded_nlc", float, encoded.clone()),
        (DetectorMasks, true, "level_0_nchw", float, level(4)),
        (DetectorMasks, true, "level_1_nchw", float, level(2)),
        (DetectorMasks, true, "encoded_nlc", float, encoded),
        (DetectorMasks, true, "prompt_nlc", float, text),
        (
            DetectorMasks,
            true,
            "queries_qc",
            float,
            vec![Dynamic("found"), hidden],
        ),
        (
            DetectorMasks,
            false,
            "mask_logits",
            float32,
            vec![Dynamic("found"), Is(4 * grid), Is(4 * grid)],
        ),
    ];
    rows.into_iter()
        .map(|(graph, input, name, kind, shape)| Row {
            graph,
            input,
            name: name.to_owned(),
            kind,
            shape,
        })
        .collect()
}
