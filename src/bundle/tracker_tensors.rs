//! Inputs and outputs of the tracker's graphs.

use super::expected::{Axis, ExpectedType, Feed, Table, feed};
use super::manifest::{DType, Manifest, Role};
use Axis::{Dynamic, Shared, Size};
use Role::{MaskDecoder, MemoryAttention, MemoryEncoder, VisionEncoder};

/// Outputs that are fed to another graph without a conversion.
pub(super) const FEEDS: [Feed; 10] = [
    feed(
        VisionEncoder,
        "features_nlc",
        MemoryAttention,
        "features_nlc",
    ),
    feed(VisionEncoder, "features_nlc", MemoryEncoder, "features_nlc"),
    feed(
        VisionEncoder,
        "features_no_memory_nlc",
        MaskDecoder,
        "embeddings_nlc",
    ),
    feed(
        VisionEncoder,
        "high_res_0_nchw",
        MaskDecoder,
        "high_res_0_nchw",
    ),
    feed(
        VisionEncoder,
        "high_res_1_nchw",
        MaskDecoder,
        "high_res_1_nchw",
    ),
    feed(
        MemoryAttention,
        "conditioned_nlc",
        MaskDecoder,
        "embeddings_nlc",
    ),
    feed(MaskDecoder, "pointers", MemoryAttention, "pointers_*"),
    feed(MaskDecoder, "low_res_masks", MemoryEncoder, "low_res_masks"),
    feed(MaskDecoder, "object_score", MemoryEncoder, "object_score"),
    feed(MemoryEncoder, "memory_nlc", MemoryAttention, "memory_*"),
];

const FLOAT: ExpectedType = ExpectedType::Float;
const FLOAT32: ExpectedType = ExpectedType::Is(DType::Float32);
const INT64: ExpectedType = ExpectedType::Is(DType::Int64);
const BOOL: ExpectedType = ExpectedType::Is(DType::Bool);
const OBJECTS: Axis = Dynamic("objects");

/// Sizes of the manifest, as axes.
struct Sizes {
    low_res: Axis,
    prompt: Axis,
    pointer_tokens: Axis,
    channels: Axis,
    /// `[1, tokens, hidden]`
    features: [Axis; 3],
    /// `[objects, tokens, hidden]`
    embeddings: [Axis; 3],
    high_res_0: [Axis; 4],
    high_res_1: [Axis; 4],
}

/// Adds the inputs and outputs of a tracker's graphs; `has_direct` where the memory encoder has the input `direct`.
pub(super) fn add(table: &mut Table, manifest: &Manifest, has_direct: bool) {
    let tokens = Size(manifest.memory.tokens.into());
    let hidden = Shared("hidden channels");
    let low_res = Size(manifest.masks.low_res.into());
    let half = Size(u64::from(manifest.masks.low_res) / 2);
    let sizes = Sizes {
        low_res,
        prompt: Size(manifest.masks.prompt_size.into()),
        pointer_tokens: Size(manifest.policy.pointer_tokens.into()),
        channels: Size(manifest.memory.channels.into()),
        features: [Size(1), tokens, hidden],
        embeddings: [OBJECTS, tokens, hidden],
        high_res_0: [Size(1), Shared("high_res_0 channels"), low_res, low_res],
        high_res_1: [Size(1), Shared("high_res_1 channels"), half, half],
    };
    let resolution = Size(manifest.resolution.into());
    let image = [Size(1), resolution, resolution, Size(3)];
    table
        .graph(VisionEncoder)
        .input("image", ExpectedType::Is(DType::Uint8), &image)
        .output("features_nlc", FLOAT, &sizes.features)
        .output("features_no_memory_nlc", FLOAT, &sizes.features)
        .output("high_res_0_nchw", FLOAT, &sizes.high_res_0)
        .output("high_res_1_nchw", FLOAT, &sizes.high_res_1);
    add_memory_attention(table, manifest, &sizes);
    add_mask_decoder(table, &sizes);
    add_memory_encoder(table, &sizes, tokens, has_direct);
}

fn add_memory_attention(table: &mut Table, manifest: &Manifest, sizes: &Sizes) {
    let memory = [OBJECTS, Dynamic("tokens"), sizes.channels];
    let policy = &manifest.policy;
    let mut graph = table.graph(MemoryAttention);
    graph.input("features_nlc", FLOAT, &sizes.features);
    // One slot per conditioning frame, and one per temporal position of a recent frame.
    for slot in 0..policy.max_cond_frames + policy.num_maskmem - 1 {
        graph.input(&format!("memory_{slot}"), FLOAT, &memory);
    }
    graph.input("pointers_cond", FLOAT, &memory);
    for offset in 1..policy.max_object_pointers {
        graph.input(&format!("pointers_{offset}"), FLOAT, &memory);
    }
    let padding = [Size(1), Size(1), Dynamic("value_padding")];
    graph
        .input("memory_time", INT64, &[OBJECTS, Dynamic("entries")])
        .input("pointer_time", FLOAT32, &[OBJECTS, Dynamic("pointers")])
        .input("value_padding", FLOAT32, &padding)
        .output("conditioned_nlc", FLOAT, &sizes.embeddings);
}

fn add_mask_decoder(table: &mut Table, sizes: &Sizes) {
    let points = Dynamic("points");
    let prompt = [Size(1), sizes.prompt, sizes.prompt];
    let masks = [OBJECTS, sizes.low_res, sizes.low_res];
    let pointers = [OBJECTS, sizes.pointer_tokens, sizes.channels];
    table
        .graph(MaskDecoder)
        .input("embeddings_nlc", FLOAT, &sizes.embeddings)
        .input("high_res_0_nchw", FLOAT, &sizes.high_res_0)
        .input("high_res_1_nchw", FLOAT, &sizes.high_res_1)
        .input("point_coords", FLOAT32, &[OBJECTS, points, Size(2)])
        .input("point_labels", INT64, &[OBJECTS, points])
        .input("mask_prompt", FLOAT32, &prompt)
        .input("has_mask_prompt", BOOL, &[Size(1)])
        .input("multimask", BOOL, &[Size(1)])
        .output("low_res_masks", FLOAT32, &masks)
        .output("object_score", FLOAT32, &[OBJECTS])
        .output("iou", FLOAT32, &[OBJECTS])
        .output("pointers", FLOAT, &pointers);
}

fn add_memory_encoder(table: &mut Table, sizes: &Sizes, tokens: Axis, has_direct: bool) {
    let prompt = [Size(1), sizes.prompt, sizes.prompt];
    let masks = [OBJECTS, sizes.low_res, sizes.low_res];
    let mut graph = table.graph(MemoryEncoder);
    graph
        .input("features_nlc", FLOAT, &sizes.features)
        .input("low_res_masks", FLOAT32, &masks)
        .input("mask_prompt", FLOAT32, &prompt)
        .input("has_mask_prompt", BOOL, &[Size(1)])
        .input("object_score", FLOAT32, &[OBJECTS])
        .input("from_prompt", BOOL, &[OBJECTS]);
    if has_direct {
        graph.input("direct", BOOL, &[Size(1)]);
    }
    graph.output("memory_nlc", FLOAT, &[OBJECTS, tokens, sizes.channels]);
}
