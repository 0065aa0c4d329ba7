//! The tensors that the tracker feeds to the graphs and takes from them, as a table that is filled in from the
//! manifest's own sizes. A graph that does not fit is refused here, by name, rather than by ONNX Runtime mid-run.

use std::collections::BTreeMap;
use std::path::Path;

use super::interface_detector::{self, FEEDS as DETECTOR_FEEDS};
use super::{BundleError, DType, Dim, Manifest, Role, TensorMismatch, TensorSpec};

/// What one axis has to be.
#[derive(Clone, Copy)]
pub(super) enum Axis {
    /// This size.
    Is(u64),
    /// Dynamic, with a symbol of this meaning (its spelling is free).
    Dynamic(&'static str),
    /// A fixed size that the manifest does not state: any, but the same wherever this name stands.
    Same(&'static str),
}

/// What a tensor's dtype has to be.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// This one.
    Is(DType),
    /// A floating-point format that the export chose.
    Float,
}

/// One row of the table.
pub(super) struct Row {
    pub graph: Role,
    pub input: bool,
    pub name: String,
    pub kind: Kind,
    pub shape: Vec<Axis>,
}

/// An output and the input of another graph that takes it.
pub(super) type Feed = (Role, &'static str, Role, &'static str);

/// Outputs that are fed to another graph without a conversion, so that their dtypes have to agree. A `*` stands for
/// a slot's number, or `cond`.
const FEEDS: [Feed; 10] = [
    (
        Role::VisionEncoder,
        "features_nlc",
        Role::MemoryAttention,
        "features_nlc",
    ),
    (
        Role::VisionEncoder,
        "features_nlc",
        Role::MemoryEncoder,
        "features_nlc",
    ),
    (
        Role::VisionEncoder,
        "features_no_memory_nlc",
        Role::MaskDecoder,
        "embeddings_nlc",
    ),
    (
        Role::VisionEncoder,
        "high_res_0_nchw",
        Role::MaskDecoder,
        "high_res_0_nchw",
    ),
    (
        Role::VisionEncoder,
        "high_res_1_nchw",
        Role::MaskDecoder,
        "high_res_1_nchw",
    ),
    (
        Role::MemoryAttention,
        "conditioned_nlc",
        Role::MaskDecoder,
        "embeddings_nlc",
    ),
    (
        Role::MaskDecoder,
        "pointers",
        Role::MemoryAttention,
        "pointers_*",
    ),
    (
        Role::MaskDecoder,
        "low_res_masks",
        Role::MemoryEncoder,
        "low_res_masks",
    ),
    (
        Role::MaskDecoder,
        "object_score",
        Role::MemoryEncoder,
        "object_score",
    ),
    (
        Role::MemoryEncoder,
        "memory_nlc",
        Role::MemoryAttention,
        "memory_*",
    ),
];

/// Checks names, dtypes and shapes of the required graphs' inputs and outputs.
pub(super) fn check(file: &Path, manifest: &Manifest) -> Result<(), BundleError> {
    let rows = table(manifest);
    let mut sizes: BTreeMap<&'static str, (u64, String)> = BTreeMap::new();
    for row in &rows {
        check_row(file, manifest, row, &mut sizes)?;
    }
    check_surplus(file, manifest, &rows)?;
    check_feeds(file, manifest)
}

fn table(manifest: &Manifest) -> Vec<Row> {
    use Axis::{Dynamic, Is, Same};
    use Role::{MaskDecoder, MemoryAttention, MemoryEncoder, VisionEncoder};

    let float32 = Kind::Is(DType::Float32);
    let int64 = Kind::Is(DType::Int64);
    let boolean = Kind::Is(DType::Bool);
    let resolution = Is(manifest.resolution.into());
    let tokens = Is(manifest.memory.tokens.into());
    let channels = Is(manifest.memory.channels.into());
    let low_res = Is(manifest.masks.low_res.into());
    let half_low_res = Is(u64::from(manifest.masks.low_res) / 2);
    let prompt = Is(manifest.masks.prompt_size.into());
    let pointer_tokens = Is(manifest.policy.pointer_tokens.into());
    let hidden = Same("hidden channels");
    let objects = Dynamic("objects");

    let mut rows = Vec::new();
    let mut row = |graph, input, name: &str, kind, shape: &[Axis]| {
        rows.push(Row {
            graph,
            input,
            name: name.to_owned(),
            kind,
            shape: shape.to_vec(),
        });
    };
    let features = [Is(1), tokens, hidden];
    let high_res_0 = [Is(1), Same("high_res_0 channels"), low_res, low_res];
    let high_res_1 = [
        Is(1),
        Same("high_res_1 channels"),
        half_low_res,
        half_low_res,
    ];

    let image = [Is(1), resolution, resolution, Is(3)];
    row(VisionEncoder, true, "image", Kind::Is(DType::Uint8), &image);
    row(VisionEncoder, false, "features_nlc", Kind::Float, &features);
    row(
        VisionEncoder,
        false,
        "features_no_memory_nlc",
        Kind::Float,
        &features,
    );
    row(
        VisionEncoder,
        false,
        "high_res_0_nchw",
        Kind::Float,
        &high_res_0,
    );
    row(
        VisionEncoder,
        false,
        "high_res_1_nchw",
        Kind::Float,
        &high_res_1,
    );

    row(
        MemoryAttention,
        true,
        "features_nlc",
        Kind::Float,
        &features,
    );
    let memory = [objects, Dynamic("tokens"), channels];
    // One slot per conditioning frame, and one per temporal position of a recent frame.
    for slot in 0..manifest.policy.max_cond_frames + manifest.policy.num_maskmem - 1 {
        row(
            MemoryAttention,
            true,
            &format!("memory_{slot}"),
            Kind::Float,
            &memory,
        );
    }
    row(MemoryAttention, true, "pointers_cond", Kind::Float, &memory);
    for offset in 1..manifest.policy.max_object_pointers {
        row(
            MemoryAttention,
            true,
            &format!("pointers_{offset}"),
            Kind::Float,
            &memory,
        );
    }
    row(
        MemoryAttention,
        true,
        "memory_time",
        int64,
        &[objects, Dynamic("entries")],
    );
    row(
        MemoryAttention,
        true,
        "pointer_time",
        float32,
        &[objects, Dynamic("pointers")],
    );
    row(
        MemoryAttention,
        true,
        "value_padding",
        float32,
        &[Is(1), Is(1), Dynamic("value_padding")],
    );
    row(
        MemoryAttention,
        false,
        "conditioned_nlc",
        Kind::Float,
        &[objects, tokens, hidden],
    );

    row(
        MaskDecoder,
        true,
        "embeddings_nlc",
        Kind::Float,
        &[objects, tokens, hidden],
    );
    row(
        MaskDecoder,
        true,
        "high_res_0_nchw",
        Kind::Float,
        &high_res_0,
    );
    row(
        MaskDecoder,
        true,
        "high_res_1_nchw",
        Kind::Float,
        &high_res_1,
    );
    row(
        MaskDecoder,
        true,
        "point_coords",
        float32,
        &[objects, Dynamic("points"), Is(2)],
    );
    row(
        MaskDecoder,
        true,
        "point_labels",
        int64,
        &[objects, Dynamic("points")],
    );
    row(
        MaskDecoder,
        true,
        "mask_prompt",
        float32,
        &[Is(1), prompt, prompt],
    );
    row(MaskDecoder, true, "has_mask_prompt", boolean, &[Is(1)]);
    row(MaskDecoder, true, "multimask", boolean, &[Is(1)]);
    row(
        MaskDecoder,
        false,
        "low_res_masks",
        float32,
        &[objects, low_res, low_res],
    );
    row(MaskDecoder, false, "object_score", float32, &[objects]);
    row(MaskDecoder, false, "iou", float32, &[objects]);
    row(
        MaskDecoder,
        false,
        "pointers",
        Kind::Float,
        &[objects, pointer_tokens, channels],
    );

    row(MemoryEncoder, true, "features_nlc", Kind::Float, &features);
    row(
        MemoryEncoder,
        true,
        "low_res_masks",
        float32,
        &[objects, low_res, low_res],
    );
    row(
        MemoryEncoder,
        true,
        "mask_prompt",
        float32,
        &[Is(1), prompt, prompt],
    );
    row(MemoryEncoder, true, "has_mask_prompt", boolean, &[Is(1)]);
    row(MemoryEncoder, true, "object_score", float32, &[objects]);
    row(MemoryEncoder, true, "from_prompt", boolean, &[objects]);
    // Of bundles whose tracks may be found: a detector of another resolution may stand in another bundle.
    let listed = tensors(manifest, MemoryEncoder, true);
    if manifest.detector.is_some() || listed.iter().any(|spec| spec.name == "direct") {
        row(MemoryEncoder, true, "direct", boolean, &[Is(1)]);
    }
    row(
        MemoryEncoder,
        false,
        "memory_nlc",
        Kind::Float,
        &[objects, tokens, channels],
    );
    if let Some(detector) = &manifest.detector {
        rows.extend(interface_detector::rows(manifest, detector));
    }
    rows
}

fn tensors(manifest: &Manifest, graph: Role, input: bool) -> &[TensorSpec] {
    manifest.graph(graph).map_or(
        &[],
        |graph| {
            if input { &graph.inputs } else { &graph.outputs }
        },
    )
}

fn wrong(
    file: &Path,
    manifest: &Manifest,
    row: (Role, bool, &str),
    expected: String,
    found: String,
) -> BundleError {
    BundleError::Tensor(Box::new(TensorMismatch {
        file: file.to_path_buf(),
        graph: row.0,
        side: if row.1 { "input" } else { "output" },
        tensor: row.2.to_owned(),
        expected,
        found,
        remedy: manifest.export_command(),
    }))
}

fn check_row(
    file: &Path,
    manifest: &Manifest,
    row: &Row,
    sizes: &mut BTreeMap<&'static str, (u64, String)>,
) -> Result<(), BundleError> {
    let expected = expected_text(row, sizes);
    let specs = tensors(manifest, row.graph, row.input);
    let place = (row.graph, row.input, row.name.as_str());
    let mut named = specs.iter().filter(|spec| spec.name == row.name);
    let Some(spec) = named.next() else {
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let found = format!("no such tensor among [{}]", names.join(", "));
        return Err(wrong(file, manifest, place, expected, found));
    };
    if named.next().is_some() {
        return Err(wrong(
            file,
            manifest,
            place,
            expected,
            "two of that name".into(),
        ));
    }

    let kind_fits = match row.kind {
        Kind::Is(dtype) => spec.dtype == dtype,
        Kind::Float => matches!(
            spec.dtype,
            DType::Float32 | DType::Float16 | DType::Bfloat16
        ),
    };
    let mut shape_fits = spec.shape.len() == row.shape.len();
    for (axis, found) in row.shape.iter().zip(&spec.shape) {
        shape_fits &= match (axis, found) {
            (Axis::Is(size), Dim::Fixed(found)) => size == found,
            (Axis::Same(name), Dim::Fixed(found)) => match sizes.get(name) {
                Some((size, _)) => size == found,
                None => *found > 0,
            },
            (Axis::Dynamic(_), Dim::Symbol(_)) => true,
            _ => false,
        };
    }
    if !kind_fits || !shape_fits {
        let found = format!("{} {}", spec.dtype, spec.shape_text());
        return Err(wrong(file, manifest, place, expected, found));
    }
    for (axis, found) in row.shape.iter().zip(&spec.shape) {
        if let (Axis::Same(name), Dim::Fixed(size)) = (axis, found) {
            sizes
                .entry(name)
                .or_insert_with(|| (*size, format!("{} of {}", row.name, row.graph)));
        }
    }
    Ok(())
}

fn expected_text(row: &Row, sizes: &BTreeMap<&'static str, (u64, String)>) -> String {
    let kind = match row.kind {
        Kind::Is(dtype) => dtype.to_string(),
        Kind::Float => "float32 or float16".to_owned(),
    };
    let mut origin = String::new();
    let dims: Vec<String> = row
        .shape
        .iter()
        .map(|axis| match axis {
            Axis::Is(size) => size.to_string(),
            Axis::Dynamic(name) => (*name).to_owned(),
            Axis::Same(name) => match sizes.get(name) {
                Some((size, from)) => {
                    origin = format!(" ({name} as in {from})");
                    size.to_string()
                }
                None => (*name).to_owned(),
            },
        })
        .collect();
    format!("{kind} [{}]{origin}", dims.join(","))
}

/// An input that nobody feeds would fail on the first frame.
fn check_surplus(file: &Path, manifest: &Manifest, rows: &[Row]) -> Result<(), BundleError> {
    let detector = manifest.detector.iter().flat_map(|_| Role::DETECTOR);
    for role in Role::REQUIRED.into_iter().chain(detector) {
        for spec in tensors(manifest, role, true) {
            let known = rows
                .iter()
                .any(|row| row.graph == role && row.input && row.name == spec.name);
            if !known {
                return Err(wrong(
                    file,
                    manifest,
                    (role, true, &spec.name),
                    "no input of that name".into(),
                    format!("{} {}", spec.dtype, spec.shape_text()),
                ));
            }
        }
    }
    Ok(())
}

fn check_feeds(file: &Path, manifest: &Manifest) -> Result<(), BundleError> {
    for (from, output, to, pattern) in FEEDS.into_iter().chain(DETECTOR_FEEDS) {
        let Some(source) = tensors(manifest, from, false)
            .iter()
            .find(|spec| spec.name == output)
        else {
            continue;
        };
        for spec in tensors(manifest, to, true) {
            let numbered = pattern
                .strip_suffix('*')
                .is_some_and(|stem| is_slot(&spec.name, stem));
            if (numbered || spec.name == pattern) && spec.dtype != source.dtype {
                return Err(wrong(
                    file,
                    manifest,
                    (to, true, &spec.name),
                    format!("{} as {from} returns it in {output}", source.dtype),
                    spec.dtype.to_string(),
                ));
            }
        }
    }
    Ok(())
}

/// `memory_3` is a slot of `memory_`, `memory_time` is not; `pointers_cond` is one of `pointers_`.
fn is_slot(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem).is_some_and(|rest| {
        rest == "cond" || (!rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    })
}
