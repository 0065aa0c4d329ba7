"""What `snow-ort detect` computes against the unpatched reference, on small random checkpoints.

The reference runs in a process of its own with its own processor: image, text and boxes go in as a user gives them.
"""

import json
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from preloaded import run_module
from safetensors.numpy import load_file
from workshop import Workshop, program

# Of scores and of sides as shares of the image; of mask logits, relative L2.
TOLERANCE = 1e-3
BOXES = [{"box": [18, 28, 62, 72], "label": 1}, {"box": [90, 60, 150, 118], "label": 0}]


@dataclass
class Case:
    """A checkpoint and what is looked for in the images of a synthetic clip."""

    seed: int
    texts: tuple[str, ...] = ()
    boxes: tuple[dict, ...] = ()
    size: int = 112
    images: int = 2


CASES = {
    "one text": Case(1, ("red bear",)),
    "four texts": Case(1, ("red bear", "a dog", "Zürich's  HAT, 3 of them", "object")),
    "text and a box": Case(1, ("a dog",), (BOXES[0],), images=1),
    "text and boxes for and against": Case(1, ("a dog",), tuple(BOXES), images=1),
    "boxes alone": Case(1, (), (BOXES[1], BOXES[0], {"box": [0, 0, 214, 120]}), images=1),
    "a grid that windows do not tile": Case(3, ("a dog",), (BOXES[0],), size=154, images=1),
}


def detect(workshop: Workshop, case: Case, name: str, precision: str = "fp32") -> list[tuple[dict, dict]]:
    """Raw results of the program and of the reference, image by image and text by text."""
    checkpoint = workshop.video_checkpoint(case.seed, case.size)
    bundle = workshop.bundle(checkpoint, case.size, precision, "tracker,detector")
    images = workshop.synthetic(case.images)
    out = workshop.folder / "detect" / f"{name}-{precision}".replace(" ", "-")
    command = [program("snow-ort"), "detect", images, "--model", bundle, "--threshold", "0", "--quiet", "--overwrite"]
    command += ["--out", out, "--dump-logits", out.with_suffix(".logits")]
    for text in case.texts:
        command += ["--text", text]
    for entry in case.boxes:
        command += ["--box", ",".join(str(value) for value in (*entry["box"], entry.get("label", 1)))]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    pairs = []
    for place, text in enumerate(case.texts or (None,)):
        expected = workshop.folder / "reference" / f"{name}-{place}".replace(" ", "-")
        words = ["--images", images, "--res", case.size, "--out", expected, "--boxes", json.dumps(case.boxes)]
        words += ["--text", text] if text else []
        workshop.once(expected, partial(run_module, "snow_export.reference_detector", checkpoint, *words))
        for image in range(case.images):
            number = image * max(len(case.texts), 1) + place
            got = load_file(out.with_suffix(".logits") / f"{number:05d}.safetensors")
            pairs.append((got, load_file(expected / f"{image:05d}.safetensors")))
    return pairs


def distances(got: dict, expected: dict) -> tuple[float, float, float]:
    """Greatest difference of scores and of sides, and relative L2 of the mask logits of all candidates."""
    assert set(got["rows"].tolist()) == set(range(len(expected["scores"])))
    masks = expected["mask_logits"][got["rows"]]
    return (
        float(np.abs(got["scores"] - expected["scores"]).max()),
        float(np.abs(got["boxes"] - expected["boxes"]).max()),
        float(np.linalg.norm(got["mask_logits"] - masks) / np.linalg.norm(masks)),
    )


@pytest.mark.parametrize("name", CASES)
def test_boxes_scores_and_masks_are_the_references(workshop, name, record_property):
    for got, expected in detect(workshop, CASES[name], name):
        scores, boxes, masks = distances(got, expected)
        record_property("distances", (scores, boxes, masks))
        assert scores <= TOLERANCE and boxes <= TOLERANCE and masks <= TOLERANCE
        # Candidates that are all alike would agree whatever the detector does.
        assert expected["boxes"].std(axis=0).min() > 0.05
        positive = (expected["mask_logits"] > 0).mean()
        assert 0.05 < positive < 0.95


def test_half_precision_is_near(workshop):
    name = "text and boxes for and against"
    for got, expected in detect(workshop, CASES[name], name, "fp16"):
        scores, boxes, masks = distances(got, expected)
        assert scores <= 0.02 and boxes <= 0.02 and masks <= 0.05


def test_what_is_given_matters(workshop):
    """Another text, another box, and a box that is meant instead of not: each changes the result by far more."""
    plain = detect(workshop, Case(1, ("a dog",), tuple(BOXES), images=1), "text and boxes for and against")[0][0]
    others = {
        "another text": Case(1, ("red bear",), tuple(BOXES), images=1),
        "another label": Case(1, ("a dog",), ({**BOXES[0], "label": 0}, BOXES[1]), images=1),
        "another box": Case(1, ("a dog",), ({**BOXES[0], "box": [18, 28, 70, 80]}, BOXES[1]), images=1),
        "no box": Case(1, ("a dog",), (), images=1),
    }
    for name, case in others.items():
        other = detect(workshop, case, name)[0][0]
        assert np.abs(other["boxes"] - plain["boxes"]).max() > 2 * TOLERANCE, name


def test_files_say_the_same(workshop):
    case = Case(1, ("red bear", "a dog"))
    checkpoint = workshop.video_checkpoint(case.seed)
    bundle = workshop.bundle(checkpoint, case.size, "fp32", "tracker,detector")
    out = workshop.folder / "detect" / "files"
    command = [program("snow-ort"), "detect", workshop.synthetic(2), "--model", bundle, "--out", out, "--overwrite"]
    command += ["--text", "red bear", "--text", "a dog", "--threshold", "0.02"]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    found = json.loads((out / "detections.json").read_text())
    assert [category["name"] for category in found["categories"]] == ["red bear", "a dog"]
    assert [Path(image["file_name"]).name for image in found["images"]] == ["00000.png", "00001.png"]
    assert found["annotations"], "no candidate passes the threshold: the test shows nothing"
    from PIL import Image

    for image in found["images"]:
        ids = np.asarray(Image.open(out / "masks" / f"{image['id']:05d}.png"))
        assert ids.shape == (image["height"], image["width"])
        assert Image.open(out / "overlays" / f"{image['id']:05d}.png").size == (image["width"], image["height"])
        mine = [entry for entry in found["annotations"] if entry["image_id"] == image["id"]]
        scores = [entry["score"] for entry in mine]
        assert scores == sorted(scores, reverse=True) and min(scores) > 0.02
        # The best lies in front, so its mask is whole.
        assert (ids == 1).sum() == mine[0]["area"]
        assert [entry["mask_index"] for entry in mine] == list(range(1, len(mine) + 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("empty", "bear")),
        (" \t", ("empty",)),
        ("bear " * 40, ("too long", "42 tokens", "32")),
    ],
)
def test_texts_that_cannot_be_used(workshop, text, words):
    bundle = workshop.bundle(workshop.video_checkpoint(1), 112, "fp32", "tracker,detector")
    out = workshop.folder / "detect" / "refused"
    command = [program("snow-ort"), "detect", workshop.synthetic(2), "--model", bundle, "--text", text, "--out", out]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for word in words:
        assert word in done.stderr
    assert not out.exists()
