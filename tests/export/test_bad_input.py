"""What snow-export cannot do: a message that names the thing, exit code 2, and nothing left behind."""

import json
import shutil

import httpx2
import huggingface_hub
import pytest
from exporting import RESOLUTION, left_over, snow_export, snow_export_process, write_weights
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.numpy import load_file, save_file


@pytest.fixture
def full_size(tmp_path):
    """The configuration of the full model, and no weights to speak of: what is refused is refused before loading."""
    from transformers import Sam3TrackerVideoConfig

    folder = tmp_path / "full"
    Sam3TrackerVideoConfig().save_pretrained(folder)
    write_weights(folder)
    return folder


def test_a_resolution_between_patches(full_size, tmp_path):
    run = snow_export(full_size, "--res", 512, "--out", tmp_path / "models")
    run.refused("512", "14 px", "504 and 518", "336, 672 and 1008", "exactly")
    assert left_over(tmp_path / "models") == []


def test_one_bad_resolution_among_good_ones(full_size, tmp_path):
    snow_export(full_size, "--res", "1008,1000", "--out", tmp_path / "models").refused("1000", "994 and 1008")
    assert left_over(tmp_path / "models") == []


@pytest.mark.parametrize("res", ["", "large", "672;504", "-14", "0"])
def test_a_resolution_that_is_no_side(full_size, tmp_path, res):
    snow_export(full_size, f"--res={res}", "--out", tmp_path / "models").refused("--res", repr(res))
    assert left_over(tmp_path / "models") == []


def test_an_unknown_precision(full_size, tmp_path):
    snow_export(full_size, "--precision", "int3", "--out", tmp_path / "models").refused("int3", "fp32", "fp16")
    assert left_over(tmp_path / "models") == []


def test_one_golden_frame(full_size, tmp_path):
    snow_export(full_size, "--golden-frames", 1, "--out", tmp_path / "models").refused("--golden-frames", "2 and more")


@pytest.mark.parametrize("name", ["a/b", ".hidden", ".."])
def test_a_name_that_is_no_folder_name(full_size, tmp_path, name):
    snow_export(full_size, "--name", name, "--out", tmp_path / "models").refused("--name", name)
    assert left_over(tmp_path / "models") == []


@pytest.mark.parametrize("config", [{"model_type": "bert"}, {"model_type": "sam3"}, {}])
def test_another_family(folder_with, tmp_path, config):
    folder = folder_with(config)
    run = snow_export(folder, "--out", tmp_path / "models")
    run.refused(str(folder), config.get("model_type", "unknown"), "sam3_tracker_video, sam3_video")
    assert left_over(tmp_path / "models") == []


def test_a_missing_folder(tmp_path):
    snow_export(tmp_path / "nowhere", "--out", tmp_path / "models").refused(str(tmp_path / "nowhere"), "no such folder")
    assert left_over(tmp_path / "models") == []


def test_a_file_instead_of_a_folder(tmp_path):
    (tmp_path / "sam3.pt").write_bytes(b"weights")
    snow_export(tmp_path / "sam3.pt").refused(str(tmp_path / "sam3.pt"), "is a file", "config.json")


def test_a_folder_without_config(tmp_path):
    (tmp_path / "empty").mkdir()
    snow_export(tmp_path / "empty", "--out", tmp_path / "models").refused(str(tmp_path / "empty"), "no config.json")


def test_a_folder_without_weights(folder_with, tmp_path):
    folder = folder_with({"model_type": "sam3_video"}, weights=False)
    snow_export(folder, "--out", tmp_path / "models").refused(str(folder), "no *.safetensors")
    assert left_over(tmp_path / "models") == []


@pytest.mark.parametrize(("text", "word"), [('{"model_type": ', "not JSON"), ("[1, 2]", "expected a JSON object")])
def test_a_config_that_is_no_json_object(folder_with, tmp_path, text, word):
    folder = folder_with(text)
    snow_export(folder, "--out", tmp_path / "models").refused(str(folder / "config.json"), word)
    assert left_over(tmp_path / "models") == []


def damaged(checkpoint, tmp_path, change):
    """A copy of the checkpoint whose tensors went through `change`."""
    folder = tmp_path / "damaged"
    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("golden", [0, 3])
def test_missing_tensors(checkpoint, tmp_path, golden):
    folder = damaged(
        checkpoint, tmp_path, lambda tensors: tensors.pop("tracker_model.memory_attention.layer_norm.weight")
    )
    run = snow_export(folder, "--res", RESOLUTION, "--out", tmp_path / "models", "--golden-frames", golden)
    run.refused(str(folder), "missing", "memory_attention.layer_norm.weight")
    assert left_over(tmp_path / "models") == []


def test_tensors_of_another_size(checkpoint, tmp_path):
    def change(tensors):
        name = "tracker_model.no_object_pointer"
        tensors[name] = tensors[name][:, :8].copy()

    folder = damaged(checkpoint, tmp_path, change)
    run = snow_export(folder, "--res", RESOLUTION, "--out", tmp_path / "models", "--golden-frames", 0)
    run.refused(str(folder), "another shape", "no_object_pointer")
    assert left_over(tmp_path / "models") == []


def test_truncated_weights(checkpoint, tmp_path):
    folder = tmp_path / "truncated"
    shutil.copytree(checkpoint, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    run = snow_export(folder, "--res", RESOLUTION, "--out", tmp_path / "models", "--golden-frames", 0)
    run.refused(str(weights), "truncated", "Download it again")
    assert left_over(tmp_path / "models") == []


def test_a_config_with_a_wrong_type(checkpoint, tmp_path):
    folder = tmp_path / "wrong"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["num_maskmem"] = "seven"
    (folder / "config.json").write_text(json.dumps(config))
    run = snow_export(folder, "--res", RESOLUTION, "--out", tmp_path / "models")
    run.refused(str(folder / "config.json"), "num_maskmem", "seven")
    assert left_over(tmp_path / "models") == []


RESPONSE = httpx2.Response(403, request=httpx2.Request("GET", "http://localhost/owner/model"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GatedRepoError("gated", response=RESPONSE), ["is gated", "hf auth login", "HF_TOKEN"]),
        (RepositoryNotFoundError("404", response=RESPONSE), ["no such model", "check the id"]),
        (LocalEntryNotFoundError("not in the cache"), ["cannot be downloaded", "give its folder"]),
        (httpx2.ConnectError("connection refused"), ["connection refused", "Check the network", "give its folder"]),
        (OSError(28, "No space left on device"), ["cannot be downloaded", "No space left"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_id_that_cannot_be_had(monkeypatch, tmp_path, error, words):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    snow_export("owner/model", "--out", tmp_path / "models").refused("owner/model", *words)
    assert left_over(tmp_path / "models") == []


@pytest.mark.parametrize(
    "environment",
    # Nothing answers on port 9 of this machine.
    [{"HF_HUB_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}],
    ids=["offline", "no network"],
)
def test_an_id_without_a_network(tmp_path, environment):
    """In a process of its own: the hub's library reads its settings when it is loaded."""
    out = tmp_path / "models"
    run = snow_export_process("owner/model", "--out", out, HF_HOME=str(tmp_path / "cache"), **environment)
    run.refused("owner/model", "cannot be downloaded", "give its folder")
    assert left_over(out) == []


def test_something_that_is_neither_folder_nor_id(tmp_path):
    snow_export("sam3", "--out", tmp_path / "models").refused("sam3", "owner/name")


def test_a_bundle_that_exists(checkpoint, bundle):
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    run = snow_export(checkpoint, "--res", RESOLUTION, "--out", bundle.parent)
    run.refused(str(bundle), "exists already", "--overwrite")
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == before


def test_an_output_folder_that_cannot_be_made(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "models"
    snow_export(checkpoint, "--res", RESOLUTION, "--out", out).refused(str(out), "cannot be written", "--out")


def test_an_output_folder_without_permission(checkpoint, tmp_path):
    out = tmp_path / "models"
    out.mkdir(mode=0o555)
    try:
        (out / "probe").touch()
    except OSError:
        snow_export(checkpoint, "--res", RESOLUTION, "--out", out).refused(str(out), "cannot be written")
    else:
        pytest.skip("this user may write anywhere")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device", "data")])
def test_an_export_that_is_cut_short(monkeypatch, checkpoint, tmp_path, error):
    from snow_export import bundle

    write_graph = bundle.write_graph

    def cut_short(spec, folder):
        # Something is there already when it happens.
        (folder / "half.onnx").write_bytes(b"half")
        if spec.role == "vision_encoder":
            raise error
        return write_graph(spec, folder)

    monkeypatch.setattr(bundle, "write_graph", cut_short)
    run = snow_export(checkpoint, "--res", RESOLUTION, "--out", tmp_path / "models", "--golden-frames", 0)
    run.refused("nothing was kept")
    assert left_over(tmp_path / "models") == []


def test_a_failed_export_keeps_the_old_bundle(monkeypatch, checkpoint, bundle):
    from snow_export import bundle as module

    def cut_short(*_):
        raise OSError(28, "No space left on device", "data")

    monkeypatch.setattr(module, "write_graph", cut_short)
    before = left_over(bundle.parent)
    snow_export(checkpoint, "--res", RESOLUTION, "--out", bundle.parent, "--golden-frames", 0, "--overwrite").refused(
        "No space left", "nothing was kept"
    )
    assert left_over(bundle.parent) == before


def test_graphs_that_differ_from_the_reference(monkeypatch, checkpoint, tmp_path):
    """The check at the end of an export is one that can fail."""
    from snow_export import verify

    monkeypatch.setattr(verify, "TOLERANCE", 1e-12)
    run = snow_export(checkpoint, "--res", RESOLUTION, "--out", tmp_path / "models", "--golden-frames", 2)
    run.refused("vision_encoder", "from the reference")
    assert left_over(tmp_path / "models") == []
