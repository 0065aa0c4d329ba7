"""J and F of `snow-ort run --gt`, against an implementation of their own: whole-frame arrays and scikit-image.

It follows DAVIS 2017: `_seg2bmap` for the outline, a dilation by a disk of 0.008 of the diagonal for the tolerance.
"""

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.filters import gaussian
from skimage.morphology import dilation, disk
from workshop import ROOT, program

FRAMES = 10
VOID = 255
PROMPTS = [
    {"frame": 0, "object": 1, "box": [32, 122, 92, 182]},
    {"frame": 0, "object": 2, "points": [[248, 70, 1], [160, 40, 0]]},
    {"frame": 4, "object": 3, "box": [150, 100, 215, 170]},
]
# Object 9 has no prompt. Frame 3 is not annotated.
ANNOTATED = [0, 1, 2, 4, 5, 6, 7, 8, 9]


def outline(mask: np.ndarray) -> np.ndarray:
    """The boundary map of a mask of the same size."""
    right, below, across = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1] = mask[:, 1:]
    below[:-1, :] = mask[1:, :]
    across[:-1, :-1] = mask[1:, 1:]
    boundary = (mask ^ right) | (mask ^ below) | (mask ^ across)
    boundary[-1, :] = mask[-1, :] ^ right[-1, :]
    boundary[:, -1] = mask[:, -1] ^ below[:, -1]
    boundary[-1, -1] = False
    return boundary


def region(truth: np.ndarray, got: np.ndarray) -> float:
    """Intersection over union."""
    union = (truth | got).sum()
    return 1.0 if union == 0 else float((truth & got).sum() / union)


def boundary(truth: np.ndarray, got: np.ndarray) -> float:
    """F-measure of the outlines."""
    footprint = disk(math.ceil(0.008 * np.linalg.norm(truth.shape)))
    wanted, found = outline(truth), outline(got)
    if not wanted.any() and not found.any():
        return 1.0
    if not wanted.any() or not found.any():
        return 0.0
    precision = (found & dilation(wanted, footprint)).sum() / found.sum()
    recall = (wanted & dilation(found, footprint)).sum() / wanted.sum()
    return 0.0 if precision + recall == 0 else float(2 * precision * recall / (precision + recall))


def run(out: Path, *options: object) -> dict:
    """Tracks the start of the demo clip and returns run.json."""
    prompts = out.with_suffix(".json")
    prompts.write_text(json.dumps(PROMPTS))
    command = [
        program("snow-ort"),
        "run",
        ROOT / "demo/clip.mp4",
        "--model",
        ROOT / "tests/fixtures/snow-random-112-fp16",
    ]
    command += ["--prompts", prompts, "--max-frames", FRAMES, "--out", out, *options]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "run.json").read_text())


def labels(path: Path) -> np.ndarray:
    """Labels of an index PNG."""
    image = Image.open(path)
    assert image.mode == "P", image.mode
    return np.asarray(image)


def write(path: Path, values: np.ndarray) -> None:
    """An index PNG."""
    image = Image.fromarray(values.astype(np.uint8), mode="P")
    image.putpalette([value for index in range(256) for value in (index, index, index)])
    image.save(path)


def blobs(random: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    """Smooth random regions that cover a share of the frame and touch its borders."""
    noise = gaussian(random.standard_normal(shape), sigma=float(random.uniform(3, 12)))
    return noise > np.quantile(noise, 1 - share)


def annotate(masks: Path, truth: Path) -> None:
    """Ground truth that is right, nearly right, and unrelated, with ignored pixels."""
    random = np.random.default_rng(17)
    truth.mkdir()
    for frame in ANNOTATED:
        values = labels(masks / f"{frame:05d}.png").copy()
        if frame % 3 == 0:
            for number in (1, 2, 3):
                values[blobs(random, values.shape, 0.12)] = number
        elif frame % 3 == 1:
            values = np.roll(values, (random.integers(-4, 5), random.integers(-4, 5)), axis=(0, 1))
            values[blobs(random, values.shape, 0.05)] = random.integers(0, 4)
        if frame >= 5:
            values[blobs(random, values.shape, 0.06)] = 9
        if frame % 2 == 0:
            values[blobs(random, values.shape, 0.04)] = VOID
        if frame == 7:
            values[values == 1] = 0
        write(truth / f"{frame:05d}.png", values)


@pytest.mark.filterwarnings("ignore:.*mode.*:DeprecationWarning")
def test_scores_are_those_of_an_implementation_of_their_own(tmp_path):
    """Every frame's J and F, the means, and which frames count."""
    run(tmp_path / "first")
    truth = tmp_path / "truth"
    annotate(tmp_path / "first" / "masks", truth)
    scores = run(tmp_path / "second", "--gt", truth)["scores"]

    # The frame after the first prompt; for the object without one, the first frame that shows it.
    starts = {1: 1, 2: 1, 3: 5, 9: 5}
    assert {entry["object"]: entry["tracked"] for entry in scores["objects"]} == {1: True, 2: True, 3: True, 9: False}
    means = []
    seen = []
    for entry in scores["objects"]:
        number = entry["object"]
        expected = []
        for frame in [frame for frame in ANNOTATED if frame >= starts[number]]:
            wanted = labels(truth / f"{frame:05d}.png")
            got = labels(tmp_path / "second" / "masks" / f"{frame:05d}.png")
            judged = wanted != VOID
            pair = ((wanted == number) & judged, (got == number) & judged)
            expected.append((frame, region(*pair), boundary(*pair)))
        got = [(score["frame"], score["j"], score["f"]) for score in entry["per_frame"]]
        assert [frame for frame, _, _ in got] == [frame for frame, _, _ in expected]
        np.testing.assert_allclose(np.array(got), np.array(expected), rtol=0, atol=1e-12)
        values = np.array(expected)[:, 1:]
        mean = values.mean(axis=0)
        recall = (values > 0.5).mean(axis=0)
        means.append([mean[0], recall[0], mean[1], recall[1], mean.mean()])
        names = ["j", "j_recall", "f", "f_recall", "j_and_f"]
        np.testing.assert_allclose([entry["mean"][name] for name in names], means[-1], rtol=0, atol=1e-12)
        seen.extend(values.flatten().tolist())
    overall = [scores["overall"][name] for name in names]
    np.testing.assert_allclose(overall, np.mean(means, axis=0), rtol=0, atol=1e-12)
    # The cases are worth something only if the scores are neither all perfect nor all nothing.
    between = [value for value in seen if 0.01 < value < 0.99]
    assert len(between) > len(seen) / 3, seen
