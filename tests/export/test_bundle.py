"""What snow-export writes: a bundle that states what it holds, and the same bytes every time."""

import hashlib
import json
import shutil

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
from exporting import RESOLUTION, ROOT, WINDOW, left_over, snow_export, snow_export_process
from safetensors.numpy import load_file, save_file
from snow_export.checkpoint import find_checkpoint

SCHEMA = json.loads((ROOT / "models" / "schema" / "manifest.schema.json").read_text())
ROLES = ["vision_encoder", "memory_attention", "mask_decoder", "memory_encoder"]
ONNX_RUNTIME_TYPES = {
    "uint8": "tensor(uint8)",
    "int64": "tensor(int64)",
    "bool": "tensor(bool)",
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "bfloat16": "tensor(bfloat16)",
}


def manifest_of(folder) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def listed(manifest) -> list[dict]:
    """Every file that a manifest names."""
    graphs = manifest["graphs"]
    tokenizer = [manifest["detector"]["tokenizer"]] if manifest.get("detector") else []
    return graphs + [graph["data"] for graph in graphs if graph["data"]] + manifest["golden"] + tokenizer


def graph_hashes(folder) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.suffix in (".onnx", ".data")
    }


def check_files(folder) -> None:
    """The manifest names every file, and each is what it says."""
    manifest = manifest_of(folder)
    jsonschema.validate(manifest, SCHEMA)
    for entry in listed(manifest):
        data = (folder / entry["file"]).read_bytes()
        assert len(data) == entry["bytes"], entry["file"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], entry["file"]
    names = {entry["file"] for entry in listed(manifest)} | {"manifest.json", "LICENSE", "golden"}
    assert set(left_over(folder)) <= names


def check_signatures(folder) -> None:
    """ONNX Runtime loads every graph and sees the inputs and outputs that the manifest states."""
    for graph in manifest_of(folder)["graphs"]:
        session = onnxruntime.InferenceSession(folder / graph["file"], providers=["CPUExecutionProvider"])
        for stated, found in ((graph["inputs"], session.get_inputs()), (graph["outputs"], session.get_outputs())):
            assert [one["name"] for one in stated] == [node.name for node in found], graph["role"]
            for one, node in zip(stated, found, strict=True):
                assert ONNX_RUNTIME_TYPES[one["dtype"]] == node.type, node.name
                assert one["shape"] == node.shape, node.name


def test_the_manifest(bundle):
    manifest = manifest_of(bundle)
    jsonschema.validate(manifest, SCHEMA)
    assert [graph["role"] for graph in manifest["graphs"]] == ROLES
    assert manifest["resolution"] == RESOLUTION
    assert manifest["grid"] == RESOLUTION // 14
    assert manifest["precision"] == "fp32"
    assert manifest["memory"]["dtype"] == "bfloat16"
    assert manifest["policy"]["num_maskmem"] == 7
    assert manifest["source"]["random_weights"] is True
    assert manifest["source"]["id"] == "tiny"
    assert (bundle / "LICENSE").read_text()


def test_the_files(bundle):
    check_files(bundle)


def test_the_signatures(bundle):
    check_signatures(bundle)


def test_the_symbolic_axes(bundle):
    """Objects, memories and pointers are axes of any length."""
    graphs = {graph["role"]: graph for graph in manifest_of(bundle)["graphs"]}
    shapes = {one["name"]: one["shape"] for one in graphs["memory_attention"]["inputs"]}
    assert shapes["memory_0"][:2] == ["objects", "memory_tokens_0"]
    assert shapes["pointers_cond"][:2] == ["objects", "pointer_tokens_cond"]
    for role in ROLES[1:]:
        assert graphs[role]["outputs"][0]["shape"][0] == "objects"


def test_the_golden_vectors(bundle):
    manifest = manifest_of(bundle)
    kinds = {entry["kind"] for entry in manifest["golden"]}
    assert kinds == {*ROLES, "rollout", "input"}
    rollout = load_file(bundle / "golden" / "rollout.safetensors")
    prompts = json.loads((bundle / "golden" / "prompts.json").read_text())
    objects = len({prompt["object"] for prompt in prompts})
    assert rollout["frames"].shape == (3, 120, 160, 3)
    low = manifest["masks"]["low_res"]
    for frame in range(3):
        assert rollout[f"{frame:05d}.low_res_masks"].shape == (objects, low, low)
    for graph in manifest["graphs"]:
        tensors = load_file(bundle / "golden" / f"{graph['role']}.safetensors")
        assert {f"in.{one['name']}" for one in graph["inputs"]} <= set(tensors)


def test_the_default_bundle():
    """The bundle that runs when none is named is whole, and the checkpoint beside it is what it was made from."""
    model = ROOT / "models" / "snow-tiny"
    folder = model / "snow-tiny-336-fp16"
    check_files(folder)
    check_signatures(folder)
    source = manifest_of(folder)["source"]
    assert source["random_weights"] is False
    assert source["sha256"] == find_checkpoint(str(model / "checkpoint")).sha256()
    committed = sum(path.stat().st_size for path in [*model.rglob("*"), *(ROOT / "demo").rglob("*")] if path.is_file())
    # 16 MB without a detector; the reference ties the width of its pyramid to the tracker's, which nobody would choose.
    assert committed <= 28_000_000


def test_the_bundle_of_the_rust_tests():
    """It is whole, and says that its weights are random."""
    folder = ROOT / "tests" / "fixtures" / "snow-random-112-fp16"
    check_files(folder)
    check_signatures(folder)
    assert manifest_of(folder)["source"]["random_weights"] is True


@pytest.fixture(scope="module")
def int8_bundle(checkpoint, tmp_path_factory):
    """The same checkpoint with linear layers in integers."""
    out = tmp_path_factory.mktemp("int8")
    run = snow_export(checkpoint, "--res", RESOLUTION, "--precision", "int8", "--out", out, "--golden-frames", 2)
    assert run.code == 0, run.stderr
    folder = out / f"tiny-{RESOLUTION}-int8"
    assert [path.name for path in out.iterdir()] == [folder.name]
    return folder


def test_exports_are_reproducible(checkpoint, int8_bundle, tmp_path):
    """Another process, another folder, another resolution before: the same bytes. In int8, which is made of the
    graphs of float32.
    """
    copy = tmp_path / "a copy of" / "tiny"
    shutil.copytree(checkpoint, copy)
    words = ["--res", f"84,{RESOLUTION}", "--precision", "int8", "--golden-frames", 0]
    run = snow_export_process(copy, *words, "--out", tmp_path / "models")
    assert run.code == 0, run.stderr
    again = tmp_path / "models" / int8_bundle.name
    assert run.stdout.splitlines()[1].startswith(str(again))
    first, second = graph_hashes(int8_bundle), graph_hashes(again)
    assert len(first) == 8
    assert first == second
    assert manifest_of(again)["golden"] == []
    check_files(again)
    other = tmp_path / "models" / "tiny-84-int8"
    check_files(other)
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [again.name, other.name]
    assert manifest_of(other)["grid"] == 6


def test_overwrite_replaces(checkpoint, tmp_path):
    old = tmp_path / f"tiny-{RESOLUTION}-fp16"
    old.mkdir()
    (old / "stale").write_text("")
    run = snow_export(
        checkpoint, "--res", RESOLUTION, "--precision", "fp16", "--out", tmp_path, "--golden-frames", 2, "--overwrite"
    )
    assert run.code == 0, run.stderr
    assert not (old / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == [old.name]
    check_half_precision(old, checkpoint)


def test_int8_bundles(checkpoint, bundle, int8_bundle):
    """Every linear layer is in integers, and nothing else is."""
    check_files(int8_bundle)
    check_signatures(int8_bundle)
    manifest = manifest_of(int8_bundle)
    jsonschema.validate(manifest, SCHEMA)
    assert (manifest["precision"], manifest["memory"]["dtype"]) == ("int8", "bfloat16")
    wide = {graph["role"]: graph for graph in manifest_of(bundle)["graphs"]}
    weights = load_file(checkpoint / "model.safetensors")
    matrices = [value for name, value in weights.items() if name.endswith("weight") and value.ndim == 2]
    layers = {np.ascontiguousarray(value).tobytes() for matrix in matrices for value in (matrix, matrix.T)}
    for graph in manifest["graphs"]:
        before, after = (onnx.load(root / graph["file"]).graph for root in (bundle, int8_bundle))
        kinds = [[node.op_type for node in nodes] for nodes in (before.node, after.node)]
        products = sum(kind in ("MatMul", "Gemm") for kind in kinds[0])
        left = [node for node in after.node if node.op_type in ("MatMul", "Gemm")]
        assert kinds[1].count("MatMulInteger") + len(left) == products
        assert kinds[1].count("MatMulInteger") > 0
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor).tobytes() for tensor in after.initializer}
        assert not [node.name for node in left if constants.get(node.input[1]) in layers], graph["role"]
        for kind in ("Conv", "ConvTranspose", "MultiHeadAttention", "LayerNormalization"):
            assert kinds[0].count(kind) == kinds[1].count(kind)
        signature = [("inputs", graph["inputs"]), ("outputs", graph["outputs"])]
        assert all(value == wide[graph["role"]][name] for name, value in signature)


def check_half_precision(folder, checkpoint) -> None:
    """Weights are float16 but for the islands, and the islands kept every bit."""
    from snow_export.precision import FLOAT32_ISLANDS

    check_files(folder)
    check_signatures(folder)
    manifest = manifest_of(folder)
    assert manifest["precision"] == "fp16"
    assert manifest["memory"]["dtype"] == "float16"
    weights = load_file(checkpoint / "model.safetensors")
    halves = 0
    for graph in manifest["graphs"]:
        model = onnx.load(folder / graph["file"])
        wide = {}
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT16:
                halves += int(np.prod(tensor.dims))
            elif tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 1:
                wide[tensor.name] = onnx.numpy_helper.to_array(tensor)
            else:
                assert tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
        islands = [value for name, value in wide.items() if name.endswith(tuple(FLOAT32_ISLANDS))]
        for name, value in wide.items():
            known = any(value is island or np.array_equal(value, island.T) for island in islands)
            # A small embedding that is added to an island's result; it was rounded like every other weight.
            rounded = value.size <= 1024 and np.array_equal(value, value.astype(np.float16).astype(np.float32))
            assert known or rounded, f"{graph['role']}: {name} {value.shape} is float32"
        if graph["role"] == "mask_decoder":
            name = "prompt.shared_embedding.positional_embedding"
            original = weights["tracker_model.prompt_encoder.shared_embedding.positional_embedding"]
            assert np.array_equal(wide[name], original)
            assert not np.array_equal(original, original.astype(np.float16).astype(np.float32))
    # Half of the parameters or more: the rest is folded, shared, or not used by the tracker.
    assert halves > 0.5 * sum(value.size for value in weights.values())


@pytest.fixture(scope="module")
def video_checkpoint(tmp_path_factory):
    """A `sam3_video` checkpoint, as `facebook/sam3` is one: detector and tracker, which share the backbone."""
    import torch
    from snow_export.random_checkpoint import randomise, small_config
    from transformers import Sam3TrackerVideoModel, Sam3VideoConfig, Sam3VideoModel

    tracker = small_config(RESOLUTION, WINDOW)
    width = tracker.vision_config.fpn_hidden_size
    layers = {"hidden_size": width, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    detector = {
        "vision_config": tracker.vision_config.to_dict(),
        "text_config": {
            "vocab_size": 60,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 16,
            "projection_dim": width,
        },
        "geometry_encoder_config": layers,
        "detr_encoder_config": layers,
        "detr_decoder_config": {**layers, "num_queries": 4},
        "mask_decoder_config": {"hidden_size": width, "num_attention_heads": 2},
    }
    config = Sam3VideoConfig(detector_config=detector, tracker_config=tracker.to_dict())
    folder = tmp_path_factory.mktemp("video") / "tiny-video"
    config.save_pretrained(folder)
    torch.manual_seed(0)
    tensors = Sam3VideoModel(config).state_dict()
    # Parameters of the tracker, drawn like those of a checkpoint of its own. Written under the names that the published
    # checkpoint has: `save_pretrained` would give the tracker's a second prefix.
    tracker_model = Sam3TrackerVideoModel(tracker)
    randomise(tracker_model, seed=5)
    for name, value in tracker_model.state_dict().items():
        if name.startswith("vision_encoder.backbone."):
            name = f"detector_model.{name}"
        elif name.startswith("vision_encoder.neck."):
            name = name.replace("vision_encoder.neck.", "tracker_neck.")
        else:
            name = f"tracker_model.{name}"
        assert tensors[name].shape == value.shape
        tensors[name] = value
    arrays = {name: value.numpy().copy() for name, value in tensors.items()}
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    _, info = Sam3VideoModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return folder


def test_the_tracker_of_a_video_checkpoint(video_checkpoint, tmp_path):
    """It is the one that the reference loads from the same folder, and nothing of the detector."""
    from transformers import Sam3TrackerVideoModel

    assert json.loads((video_checkpoint / "config.json").read_text())["model_type"] == "sam3_video"
    run = snow_export(video_checkpoint, "--res", RESOLUTION, "--out", tmp_path / "models", "--golden-frames", 3)
    assert run.code == 0, run.stderr
    exported = tmp_path / "models" / f"tiny-video-{RESOLUTION}-fp32"
    check_files(exported)
    assert manifest_of(exported)["source"]["model_type"] == "sam3_video"

    model = Sam3TrackerVideoModel.from_pretrained(video_checkpoint)
    weights = load_file(video_checkpoint / "model.safetensors")
    neck = model.vision_encoder.neck.fpn_layers[0].proj1.weight.detach().numpy()
    assert np.array_equal(neck, weights["tracker_neck.fpn_layers.0.proj1.weight"])
    assert not np.array_equal(neck, weights["detector_model.vision_encoder.neck.fpn_layers.0.proj1.weight"])
    model.save_pretrained(tmp_path / "alone")
    run = snow_export(tmp_path / "alone", "--res", RESOLUTION, "--out", tmp_path / "models", "--golden-frames", 0)
    assert run.code == 0, run.stderr
    assert graph_hashes(exported) == graph_hashes(tmp_path / "models" / f"alone-{RESOLUTION}-fp32")


def test_graphs_hold_what_gpus_are_slow_at_apart(bundle):
    """No bias in a Gemm, and no layer norm over the few channels of large planes."""
    for role in ROLES:
        graph = onnx.load(bundle / f"{role}.onnx").graph
        gemms = [node for node in graph.node if node.op_type == "Gemm"]
        assert not [node.name for node in gemms if len(node.input) > 2]
        sizes = {tensor.name: tensor.dims for tensor in graph.initializer}
        norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
        makers = {output: node for node in graph.node for output in node.output}
        turned = [node for node in norms if makers[node.input[0]].op_type == "Transpose"]
        assert all(sizes[node.input[1]][0] > 16 for node in turned if role == "memory_encoder")
        if role in ("memory_attention", "mask_decoder"):
            assert gemms


def test_padded_values_change_nothing(bundle):
    """As wide as the keys, for CUDA, or without padding: the memory attention gives the same."""
    golden = load_file(bundle / "golden" / "memory_attention.safetensors")
    session = onnxruntime.InferenceSession(bundle / "memory_attention.onnx", providers=["CPUExecutionProvider"])
    shapes = {node.name: node.shape for node in session.get_inputs()}
    hidden, channels = shapes["features_nlc"][2], shapes["memory_0"][2]
    assert hidden > channels
    results = []
    for width in (0, hidden - channels):
        given = {name: golden["in." + name] for name in shapes} | {"value_padding": np.zeros((1, 1, width), np.float32)}
        given = {name: _as_graph_takes(array, session, name) for name, array in given.items()}
        results.append(session.run_with_ort_values(["conditioned_nlc"], given)[0].numpy())
    assert np.abs(results[0] - results[1]).max() < 1e-5 * np.abs(results[0]).max()
    assert not np.array_equal(results[0], np.zeros_like(results[0]))


def _as_graph_takes(array: np.ndarray, session: onnxruntime.InferenceSession, name: str) -> onnxruntime.OrtValue:
    from snow_export.verify import _value

    return _value(array, next(node.type for node in session.get_inputs() if node.name == name))
