"""`snow-ort run --proposals` against an implementation of its own, on graphs whose proposals follow from the image."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from graphs import write
from PIL import Image
from reference import look
from skimage.filters import gaussian
from workshop import ROOT, program

BUNDLE = ROOT / "tests/fixtures/snow-random-112-fp16"
NAMES = {0: "thing", 1: "other's", 2: "third", 3: "fourth", 4: "fifth"}


def run(tmp_path: Path, command: str, *options: object) -> subprocess.CompletedProcess:
    """Runs the program, with a cache of its own."""
    line = [str(part) for part in [program("snow-ort"), command, *options]]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)


def track(tmp_path: Path, clip: Path, graph: Path, *options: object) -> tuple[dict, dict]:
    """Tracks a clip with proposals: run.json and tracks.json."""
    out = tmp_path / "out"
    done = run(tmp_path, "run", clip, "--model", BUNDLE, "--proposals", graph, "--out", out, "--overwrite", *options)
    assert done.returncode == 0, done.stderr
    return tuple(json.loads((out / name).read_text()) for name in ("run.json", "tracks.json"))


def draw(folder: Path, frames: int, width: int, height: int) -> list[np.ndarray]:
    """Frames of coloured blobs, and their pixels."""
    random = np.random.default_rng(11)
    folder.mkdir()
    images = []
    for number in range(frames):
        noise = gaussian(random.standard_normal((height, width, 3)), sigma=(7, 7, 0.3))
        noise = noise / np.abs(noise).max() * 127 + 128 + random.normal(0, 6, (height, width, 3))
        images.append(noise.clip(0, 255).astype(np.uint8))
        Image.fromarray(images[-1]).save(folder / f"{number:05d}.png")
    return images


def unpacked(rle: dict) -> np.ndarray:
    """The mask of COCO's compressed run lengths."""
    runs, value, shift = [], 0, 0
    for digit in (ord(character) - 48 for character in rle["counts"]):
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(rle["size"][::-1]).T


CASES = {
    "one class, one size": {"graph": {"size": (192, 192)}, "frame": (160, 121)},
    "classes, a wide image, a tall frame": {"graph": {"size": (256, 128), "classes": 5}, "frame": (90, 140)},
    "whatever class": {"graph": {"size": (192, 192), "classes": 5}, "frame": (192, 100), "agnostic": True},
    "any size, as the file says": {
        "graph": {"size": None, "classes": 5, "metadata": {"imgsz": "[192, 160]", "stride": "32", "names": str(NAMES)}},
        "frame": (200, 130),
    },
    "any size, as the user says": {"graph": {"size": None}, "frame": (64, 96), "side": 256},
    "float16": {"graph": {"size": (192, 160), "half": True}, "frame": (160, 120)},
    "end to end": {"graph": {"size": (192, 160), "classes": 3, "end_to_end": True}, "frame": (150, 150)},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_proposals_are_those_of_an_implementation_of_their_own(tmp_path, case):
    """Boxes, scores, classes and masks, best first, on each frame that is looked at."""
    graph = tmp_path / "graph.onnx"
    write(graph, **case["graph"])
    images = draw(tmp_path / "clip", 3, *case["frame"])
    choice = {"conf": 0.45, "iou": 0.4, "max_det": 25, "agnostic": case.get("agnostic", False)}
    options = ["--conf", choice["conf"], "--iou", choice["iou"], "--max-det", choice["max_det"], "--max-objects", 2]
    options += ["--class-agnostic"] * choice["agnostic"] + ["--discover-every", 2]
    size = case["graph"]["size"]
    if size is None:
        side = case.get("side", 192)
        size, tight = (side, side), 32
        options += ["--proposal-size", side] if "side" in case else []
    else:
        tight = None
    report, tracks = track(tmp_path, tmp_path / "clip", graph, *options)

    assert ["proposals" in frame for frame in tracks["frames"]] == [True, False, True]
    named = "names" in case["graph"].get("metadata", {})
    suppressed = 0
    for index in (0, 2):
        wanted, above = look(graph, images[index], choice, size=size, tight=tight)
        got = tracks["frames"][index]["proposals"]
        assert len(got) == len(wanted)
        # Neither nothing nor all, or the case says nothing.
        assert len(wanted) >= 3
        suppressed += above - len(wanted)
        areas = []
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one["box"], other.box, rtol=0, atol=2e-3)
            assert abs(one["score"] - other.score) < 1e-5
            assert one["class"] == other.number
            assert one["class_name"] == (NAMES[other.number] if named else None)
            mask = unpacked(one["rle"])
            assert one["area"] == mask.sum()
            # A logit that is 0 but for its last bits.
            assert (mask != other.mask).sum() <= 2
            areas.append(mask.sum() / np.prod(np.maximum(one["box"][2:] - np.array(one["box"][:2]), 1)))
        assert np.std(areas) > 0.05, areas
    assert suppressed > 0
    assert report["proposals"]["looks"] == 2
    assert report["proposals"]["proposals"] == sum(len(tracks["frames"][i]["proposals"]) for i in (0, 2))
    assert len(report["prompts"]) == len(report["objects"]) == 2


def test_a_limit_bounds_looks_too(tmp_path):
    """What `plan` says is enough; the graph stays only where there is room; and it is the same objects."""
    draw(tmp_path / "clip", 9, 160, 120)

    def plan(graph: Path, *options: object) -> dict:
        planned = ["--model", BUNDLE, "--objects", 6, "--proposals", graph, "--json"]
        done = run(tmp_path, "plan", *planned, *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)[0]

    def look_bytes(planned: dict) -> int:
        return planned["proposals"]["weights_bytes"] + planned["proposals"]["workspace_bytes"]

    # A look that takes more than any graph of the model, and one that takes less.
    large, small = tmp_path / "large.onnx", tmp_path / "small.onnx"
    write(large, size=(1280, 1280))
    write(small, size=(320, 320))
    once, again = plan(large), plan(large, "--discover-every", 2)
    assert (once["proposals"]["presence"], again["proposals"]["presence"]) == ("before", "in_turn")
    assert look_bytes(again) > max(again["workspace_bytes"].values())
    assert once["total_bytes"] < again["total_bytes"]
    least = plan(small, "--discover-every", 2)
    assert look_bytes(least) < max(least["workspace_bytes"].values())
    assert least["total_bytes"] < again["total_bytes"]

    options = ["--conf", 0.45, "--iou", 0.3, "--max-det", 3, "--max-objects", 6, "--discover-every", 2, "--covered", 1]

    def bound(graph: Path, limit: int | None) -> tuple[dict, list]:
        """The report of a run, and which objects came of the proposals of each frame."""
        more = ["--mem-limit", limit] if limit else []
        report, tracks = track(tmp_path, tmp_path / "clip", graph, *options, *more)
        assert report["proposals"]["looks"] == 5
        assert len(report["objects"]) == 6
        if limit:
            arena = report["arena"]
            assert look_bytes(least) < arena["in_use_bytes"] <= arena["predicted_bytes"] <= limit
            assert arena["peak_bytes"] <= limit
        found = [[one["object"] for one in frame.get("proposals", [])] for frame in tracks["frames"]]
        return report, found

    # While a graph of the model needs more than a look, staying loaded takes the weights' room on top.
    free, expected = bound(small, None)
    roomy, same = bound(small, least["total_bytes"] * 2)
    tight, too = bound(small, roomy["arena"]["predicted_bytes"] - 1)
    assert expected == same == too
    assert [one["proposals"]["stays_loaded"] for one in (free, roomy, tight)] == [True, True, False]
    # The first look is alone in any case.
    assert [one["proposals"]["loads"] for one in (free, roomy, tight)] == [2, 2, 5]
    bound(large, again["total_bytes"])

    out = tmp_path / "none"
    refused = ["--model", BUNDLE, "--proposals", large, "--out", out, "--mem-limit", look_bytes(again) // 2]
    done = run(tmp_path, "run", tmp_path / "clip", *refused)
    assert done.returncode == 2
    assert "a run on images of 1280 px needs" in done.stderr
    assert not out.exists()
