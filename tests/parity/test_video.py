"""`snow-ort run --text` against the unpatched reference's whole video loop, on small random checkpoints and on
the trained one.

Objects have to be born and removed on the same frames with the same numbers, and their masks have to be the same. The
reference leaves out the suppression of overlapping detections and the filling of holes where its compiled kernels are
not installed, so both are off here; they have tests of their own (tests/it/follow.rs).
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from preloaded import run_module
from safetensors.numpy import load_file
from snow_export.families.sam3_detector import LOOP
from workshop import ROOT, Workshop, program

SEED, SIZE = 1, 112
OFF = {"det_nms_thresh": 0.0, "fill_hole_area": 0}
BUSY = {"score_threshold_detection": 0.1, "new_det_thresh": 0.3, "high_conf_thresh": 0.2, "high_iou_thresh": 0.3}
# Text, frames, and parameters as config.json has them.
CASES = {
    "kept": (
        ["red bear"],
        18,
        {"score_threshold_detection": 0.5, "new_det_thresh": 0.6, "high_conf_thresh": 0.55, "high_iou_thresh": 0.5}
        | {"assoc_iou_thresh": 0.6, "hotstart_delay": 6, "hotstart_unmatch_thresh": 6, "hotstart_dup_thresh": 6}
        | {"recondition_every_nth_frame": 4, "max_num_objects": 4},
    ),
    "removed, several texts": (
        ["red bear", "a dog"],
        40,
        BUSY
        | {"hotstart_delay": 8, "hotstart_unmatch_thresh": 5, "hotstart_dup_thresh": 8, "assoc_iou_thresh": 0.7}
        | {"recondition_every_nth_frame": 4, "recondition_on_trk_masks": False, "max_num_objects": 5},
    ),
    "at once, suppressed": (
        ["a dog"],
        16,
        BUSY
        | {"hotstart_delay": 0, "hotstart_unmatch_thresh": 0, "hotstart_dup_thresh": 0, "assoc_iou_thresh": 0.8}
        | {"suppress_unmatched_only_within_hotstart": False, "init_trk_keep_alive": 2, "max_num_objects": 5}
        | {"suppress_overlapping_based_on_recent_occlusion_threshold": 0.4, "recondition_every_nth_frame": 3},
    ),
    # Parameters as they come; 224 px, for time.
    "trained": (["blue star"], 40, {}),
}


def inputs(workshop: Workshop, name: str) -> tuple[Path, int, Path]:
    """Checkpoint, resolution and clip of a case."""
    if name != "trained":
        return workshop.video_checkpoint(SEED, SIZE), SIZE, workshop.synthetic(40)
    clip = workshop.folder / "demo-text"
    if not clip.exists():
        clip.mkdir()
        command = ["ffmpeg", "-v", "error", "-i", ROOT / "demo" / "text" / "clip.mp4", clip / "%05d.png"]
        subprocess.run([str(word) for word in command], check=True)
    return ROOT / "models" / "snow-tiny" / "checkpoint", 224, clip


def reference(workshop: Workshop, name: str) -> Path:
    """What the reference finds and follows, in a process of its own."""
    texts, frames, parameters = CASES[name]
    out = workshop.folder / "reference" / f"video-{list(CASES).index(name)}"

    def make() -> None:
        checkpoint, size, clip = inputs(workshop, name)
        changed = workshop.folder / f"changed-{list(CASES).index(name)}"
        changed.mkdir()
        for path in checkpoint.iterdir():
            if path.name != "config.json":
                (changed / path.name).symlink_to(path)
        config = json.loads((checkpoint / "config.json").read_text()) | OFF | parameters
        (changed / "config.json").write_text(json.dumps(config))
        words = ["--res", size, "--out", out, "--frames", clip, "--max-frames", frames]
        for text in texts:
            words += ["--text", text]
        run_module("snow_export.reference_video", changed, *words)

    return workshop.once(out, make)


def follow(workshop: Workshop, name: str) -> dict:
    """tracks.json of the program, with the texts of run.json."""
    texts, frames, parameters = CASES[name]
    names = {key: name for name, key in LOOP.items()}
    checkpoint, size, clip = inputs(workshop, name)
    bundle = workshop.bundle(checkpoint, size, "fp32", "tracker,detector")
    out = workshop.folder / "video" / str(list(CASES).index(name))
    command = [program("snow-ort"), "run", clip, "--max-frames", frames, "--model", bundle]
    command += ["--out", out, "--overwrite", "--quiet", "--chunk", 3]
    for text in texts:
        command += ["--text", text]
    for key, value in (OFF | parameters).items():
        command += ["--follow", f"{names[key]}={json.dumps(value)}"]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    report = json.loads((out / "run.json").read_text())
    return json.loads((out / "tracks.json").read_text()) | {"texts": report["texts"]}


def decode(rle: dict) -> np.ndarray:
    """A mask of COCO's compressed run lengths, bool `[h, w]`."""
    height, width = rle["size"]
    runs, value, shift = [], 0, 0
    for character in rle["counts"]:
        digit = ord(character) - 48
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape(width, height).T


@pytest.mark.parametrize("name", CASES)
def test_the_same_objects_with_the_same_masks(workshop, name, record_property):
    expected, tracks = reference(workshop, name), follow(workshop, name)
    ious, seen = [], set()
    assert len(tracks["frames"]) == CASES[name][1]
    for frame in tracks["frames"]:
        wanted = load_file(expected / f"{frame['frame']:05d}.safetensors")
        got = {entry["object"]: decode(entry["rle"]) for entry in frame["objects"]}
        assert sorted(got) == sorted(wanted["object_ids"].tolist()), f"frame {frame['frame']}"
        for number, mask in zip(wanted["object_ids"].tolist(), wanted["masks"].astype(bool), strict=True):
            union = (mask | got[number]).sum()
            ious.append((mask & got[number]).sum() / union if union else 1.0)
        seen |= set(got)
    record_property("mean_iou", float(np.mean(ious)))
    assert ious and np.mean(ious) >= 0.99
    texts = {entry["text"]: [found["object"] for found in entry["objects"]] for entry in tracks["texts"]}
    wanted = json.loads((expected / "texts.json").read_text())
    assert {text: objects for text, objects in texts.items() if objects} == wanted


def test_int8_finds_the_same(workshop):
    """On trained weights: linear layers in 8-bit integers find what float32 finds, and follow it alike."""
    checkpoint, size, clip = inputs(workshop, "trained")
    found = []
    for precision in ("fp32", "int8"):
        bundle = workshop.bundle(checkpoint, size, precision, "tracker,detector")
        out = workshop.folder / "video" / f"trained-{precision}"
        command = [program("snow-ort"), "run", clip, "--max-frames", 20, "--model", bundle, "--out", out]
        command += ["--text", "blue star", "--text", "ring", "--overwrite", "--quiet"]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        frames = json.loads((out / "tracks.json").read_text())["frames"]
        # A number may go to what only one of them takes for a star, for a frame, and never shows.
        ids = sorted({entry["object"] for frame in frames for entry in frame["objects"]})
        found.append([{ids.index(e["object"]): decode(e["rle"]) for e in frame["objects"]} for frame in frames])
    ious = []
    for masks in zip(*found, strict=True):
        assert masks[0].keys() == masks[1].keys()
        ious += [(mask & masks[1][o]).sum() / (mask | masks[1][o]).sum() for o, mask in masks[0].items()]
    assert 0.95 <= np.mean(ious) < 1


def test_a_detector_of_another_resolution(workshop):
    """What is found at 112 px begins as the same mask at 56 px, within the coarser mask's pixels."""
    checkpoint = workshop.video_checkpoint(SEED, SIZE)
    first = {}
    for tracker in (SIZE, SIZE // 2):
        bundles = [workshop.bundle(checkpoint, size, "fp32", "tracker,detector") for size in (SIZE, tracker)]
        out = workshop.folder / "video" / f"at-{tracker}"
        command = [program("snow-ort"), "run", workshop.synthetic(24), "--max-frames", 3, "--model", bundles[1]]
        command += ["--text", "red bear", "--det-res", SIZE, "--out", out, "--overwrite", "--quiet"]
        for change in ("max_objects=3", "hotstart_delay=0", "score_threshold=0.3"):
            command += ["--follow", change]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        tracks = json.loads((out / "tracks.json").read_text())
        first[tracker] = {entry["object"]: decode(entry["rle"]) for entry in tracks["frames"][0]["objects"]}
    fine, coarse = first.values()
    assert fine and fine.keys() == coarse.keys()
    for number, mask in fine.items():
        assert (mask & coarse[number]).sum() / (mask | coarse[number]).sum() > 0.8


@pytest.mark.parametrize("tracker", [SIZE, SIZE // 2])
def test_a_limit_on_memory_holds(workshop, tracker):
    """With many objects that come one by one, what was planned is enough, and the arena stays within it."""
    checkpoint = workshop.video_checkpoint(SEED, SIZE)
    bundle = [workshop.bundle(checkpoint, size, "fp32", "tracker,detector") for size in (SIZE, tracker)][1]
    loose = {"score_threshold": 0.1, "new_object_score": 0.3, "match_iou": 0.9, "nms_iou": 0}
    loose |= {"hotstart_unmatched": 100, "hotstart_duplicate": 100, "recondition_every": 3, "max_objects": 12}
    out, predicted = workshop.folder / "video" / f"limit-{tracker}", 2**30
    for packed in (True, True, False):
        limit = predicted if packed else predicted // 2
        command = [program("snow-ort"), "run", workshop.synthetic(24), "--model", bundle, "--det-res", SIZE]
        command += ["--text", "red bear", "--text", "a dog", "--mem-limit", limit]
        command += ["--out", out, "--overwrite", "--quiet"]
        for name, value in loose.items():
            command += ["--follow", f"{name}={value}"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        report = json.loads((out / "run.json").read_text())
        assert len(report["objects"]) == 12
        arena = report["arena"]
        predicted = arena["predicted_bytes"]
        assert arena["in_use_bytes"] <= arena["peak_bytes"] <= arena["limit_bytes"]
        assert arena["in_use_bytes"] <= predicted <= arena["limit_bytes"]
        # Beside weights that are mapped there is little but the masks of all candidates, which no run makes.
        assert not packed or predicted <= 1.25 * arena["in_use_bytes"]


def test_wrong_uses_are_refused(workshop):
    bundle = workshop.bundle(workshop.video_checkpoint(SEED, SIZE), SIZE, "fp32", "tracker,detector")
    for arguments, words in (
        (["--text", "bear", "--box", "1,1,9,9"], ["--text", "--box"]),
        (["--text", "bear", "--gt", "nowhere"], ["the ground truth nowhere"]),
        (["--text", "bear", "--follow", "patience=3"], ["patience", "hotstart_delay"]),
        (["--text", "bear", "--follow", "hotstart_delay=long"], ["hotstart_delay", "number", "long"]),
        (["--text", " "], ["empty"]),
    ):
        out = workshop.folder / "video" / "refused"
        command = [program("snow-ort"), "run", workshop.synthetic(24), "--model", bundle, "--out", out, *arguments]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        assert done.returncode == 2, arguments
        for word in words:
            assert word in done.stderr, arguments
        assert not out.exists(), arguments
