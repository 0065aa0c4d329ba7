"""What is made of measurements: sections of a results file, and a proof that runs on any machine."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from exporting import ROOT
from safetensors.numpy import save_file
from snow_export import on_demand
from snow_export.bench_pytorch import replace_section
from snow_export.bench_reference import walk
from snow_export.checkpoint import Checkpoint
from snow_export.compare import compare
from snow_export.errors import ExportError
from snow_export.gpu_proof import object_boxes


def test_a_section_is_replaced_in_its_place_and_a_new_one_comes_last():
    text = "# Title\n\nWords.\n"
    for heading in ("one", "two"):
        text = replace_section(text, heading, f"of {heading}\n\n**bold**\n")
    assert text == "# Title\n\nWords.\n\n## one\n\nof one\n\n**bold**\n\n## two\n\nof two\n\n**bold**\n"
    assert replace_section(text, "one", "new") == "# Title\n\nWords.\n\n## one\n\nnew\n\n## two\n\nof two\n\n**bold**\n"


def test_the_reference_walks_through_a_clip_as_the_program_does():
    assert [walk(n, 4) for n in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert walk(7, 1) == 0


def test_boxes_hold_their_objects():
    ids = np.zeros((20, 30), np.uint8)
    ids[3:8, 10:14] = 2
    ids[7, 13] = 5
    boxes = {entry["object"]: entry["box"] for entry in object_boxes(ids)}
    assert boxes == {2: [10.0, 3.0, 14.0, 8.0], 5: [13.0, 7.0, 14.0, 8.0]}


def write_logits(folder: Path, frames: list[np.ndarray], ids: list[int]) -> Path:
    folder.mkdir(exist_ok=True)
    for index, masks in enumerate(frames):
        tensors = {"low_res_masks": masks, "object_score": masks[:, 0, 0], "object_ids": np.array(ids)}
        save_file(tensors, folder / f"{index:05d}.safetensors")
    return folder


def test_logits_that_differ_in_known_ways(tmp_path):
    wanted = np.ones((2, 4, 4), np.float32)
    wanted[:, 2:] = -1
    half = wanted.copy()
    half[1, 0] = -1
    expected = write_logits(tmp_path / "expected", [wanted, wanted], [1, 2])
    result = compare(write_logits(tmp_path / "got", [wanted, half], [1, 2]), expected)
    assert result.iou == [1.0, 0.75]
    assert result.relative_l2 == [0.0, 1.0]
    with pytest.raises(ExportError, match=r"00000.*objects \[1, 3\].*expected \[1, 2\]"):
        compare(write_logits(tmp_path / "other", [wanted, wanted], [1, 3]), expected)
    with pytest.raises(ExportError, match="has not the frames"):
        compare(write_logits(tmp_path / "short", [wanted], [1, 2]), expected)


def test_a_proof_on_the_processor_and_one_that_cannot_be_made(tmp_path):
    program = shutil.which("snow-ort", path=ROOT / "target" / "release")
    if program is None:
        pytest.skip("snow-ort is not built in target/release")
    command = [sys.executable, "-m", "snow_export.gpu_proof", "--device", "cpu", "--program", program]
    command += ["--checkpoint", str(tmp_path / "nowhere"), "--work", str(tmp_path / "work"), "--res", "112"]
    command += ["--steps", "environment,parity_small,placement"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    results = json.loads((tmp_path / "work" / "gpu.json").read_text())
    small = results["parity_small"]["found"]
    assert small["frames"] == 24 and small["objects"] >= 2
    assert small["mean_iou"] > 0.98 and 0 < small["relative_l2_first_tracked"] < 0.05
    # The others are still there, and the failure is told.
    assert "no such folder" in results["placement"]["error"] or "nowhere" in results["placement"]["error"]
    assert done.returncode == 1 and "FAILED" in done.stdout


def test_steps_of_a_proof_on_the_processor(tmp_path):
    program = shutil.which("snow-ort", path=ROOT / "target" / "release")
    if program is None:
        pytest.skip("snow-ort is not built in target/release")
    library = str(next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")))
    command = [sys.executable, "-m", "snow_export.gpu_proof", "--device", "cpu", "--program", program]
    command += ["--checkpoint", "models/snow-tiny/checkpoint", "--work", str(tmp_path), "--res", "224", "--long", "30"]
    command += ["--ort-lib", library, "--older-ort-lib", library]
    command += ["--steps", "placement,attention,growth,older_library"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: result["found"] for name, result in json.loads((tmp_path / "gpu.json").read_text()).items()}
    graphs = {"vision_encoder", "memory_attention", "mask_decoder", "memory_encoder"}
    assert set(found["placement"]["nodes"]) == graphs
    assert all(set(nodes) == {"CPUExecutionProvider"} for nodes in found["placement"]["nodes"].values())
    attention = found["attention"]["processor"]
    assert set(attention) == {"values of 64", "values of 136", "values of 256"}
    assert all(0 < one["milliseconds"] < 1e4 and one["relative_l2"] < 1e-5 for one in attention.values())
    assert found["growth"]["arena_bytes"] <= found["growth"]["limit_bytes"] and found["growth"]["frames"] == 30
    assert found["older_library"]["worst_iou"] == 1.0


def test_a_bundle_is_made_again_for_other_weights(tmp_path, monkeypatch):
    made = []

    def run(command: list[str]) -> None:
        made.append(command)
        folder = tmp_path / "out" / "any-56-fp32"
        folder.mkdir(parents=True, exist_ok=True)
        source = {"sha256": Checkpoint("", tmp_path / "weights", {}).sha256()}
        (folder / "manifest.json").write_text(json.dumps({"source": source}))

    monkeypatch.setattr(on_demand, "run", run)
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    for content, runs in ((b"one", 1), (b"one", 1), (b"another", 2)):
        (weights / "model.safetensors").write_bytes(content)
        on_demand.export(weights, "any", 56, "fp32", tmp_path / "out")
        assert len(made) == runs
