"""What texts find, against ground truth and between variants, with small random checkpoints.

Which object of one is which of the other is said by masks, not by numbers.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from workshop import ROOT, Workshop, program

TEXTS = ["--text", "round dog", "--text", "red"]
# Objects come and stay from the first frame on.
LOOP = {"score_threshold": 0.1, "new_object_score": 0.3, "match_iou": 0.8, "recondition_every": 3, "max_objects": 5}
LOOP |= {"hotstart_delay": 0, "hotstart_unmatched": 0, "hotstart_duplicate": 0}
FOLLOW = [f"--follow={name}={value}" for name, value in LOOP.items()]


def ran(*words) -> subprocess.CompletedProcess:
    command = [program("snow-ort"), *words]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)


def bundle(workshop: Workshop, seed: int, precision: str = "fp32") -> Path:
    return workshop.bundle(workshop.video_checkpoint(seed, 112), 112, precision, "tracker,detector")


@pytest.fixture(scope="module")
def found(workshop) -> Path:
    """A run with texts, to be compared with."""
    out = workshop.folder / "found" / "run"
    words = ["--model", bundle(workshop, 1), "--out", out, "--overwrite", "--quiet"]
    done = ran("run", workshop.synthetic(24), *TEXTS, *FOLLOW, *words)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def truth(found, workshop) -> Path:
    """The run's own masks on every other frame as ground truth, under other numbers: one left out, one put in."""
    folder = workshop.folder / "found" / "gt"
    folder.mkdir(exist_ok=True)
    for path in sorted((found / "masks").iterdir())[::2]:
        ids = np.array(Image.open(path))
        labels = np.zeros(ids.shape, np.uint8)
        for ours, theirs in {1: 12, 2: 11, 3: 13, 5: 14}.items():
            labels[ids == ours] = theirs
        labels[:6, :9] = 20
        image = Image.fromarray(labels, mode="P")
        image.putpalette(list(range(256)) * 3)
        image.save(folder / path.name)
    return folder


def test_found_objects_are_scored_by_their_masks(workshop, truth):
    out = workshop.folder / "found" / "scored"
    words = ["--model", bundle(workshop, 1), "--gt", truth, "--out", out, "--overwrite"]
    done = ran("run", workshop.synthetic(24), *TEXTS, *FOLLOW, *words)
    assert done.returncode == 0, done.stderr
    scores = json.loads((out / "run.json").read_text())["scores"]
    assert scores["objects_by"] == "overlap" and scores["annotated_frames"] == 12
    objects = {entry["object"]: entry for entry in scores["objects"]}
    matched = {number: entry.get("matched") for number, entry in objects.items()}
    assert matched == {11: 2, 12: 1, 13: 3, 14: 5, 20: None}
    assert scores["not_scored"] == [4]
    for number in (11, 12, 13, 14):
        # Frame 0 counts too: nothing gave the object away. But for the corner that belongs to the other object.
        assert objects[number]["tracked"] and objects[number]["mean"]["j"] > 0.98, objects[number]
    assert objects[11]["frames"] == 12
    assert objects[20]["mean"]["j"] == 0 and not objects[20]["tracked"]
    assert "found as object 2" in done.stdout and "not found" in done.stdout
    assert "does not show object 4" in done.stdout


def compare(workshop: Workshop, name: str, *more) -> tuple[subprocess.CompletedProcess, dict]:
    out = workshop.folder / "found" / name
    lengths = ["--warm", "2", "--rounds", "2", "--block", "2", "--page-frames", "4", "--out", out, "--overwrite"]
    done = ran("ab", workshop.synthetic(24), *FOLLOW, *lengths, *more)
    report = out / "report.json"
    return done, json.loads(report.read_text()) if report.exists() else {}


def test_variants_that_find_their_objects_are_compared(workshop, truth):
    models = {"a": bundle(workshop, 1), "b": bundle(workshop, 1, "fp16"), "c": bundle(workshop, 3)}
    models["plain"] = ROOT / "tests" / "fixtures" / "snow-random-112-fp16"
    variants = [f"--variant={name}={path}" for name, path in models.items()]
    gates = ["--require", "b.missed<=0 b.extra<=0 c.missed<=0 a.objects>=5 b.gt_missed<=1"]
    done, report = compare(workshop, "ab", *TEXTS, *variants, "--gt", truth, *gates)
    # A gate speaks first; what failed is a row that says why.
    assert done.returncode == 1, done.stderr
    assert "c.missed<=0: NOT MET" in done.stdout and "b.missed<=0: met" in done.stdout
    assert "plain failed" in done.stdout and "--parts tracker,detector" in done.stdout
    for column in ("gt missed", "gt extra", "objects", "missed", "extra", "differ"):
        assert column in done.stdout
    assert report["texts"] == ["round dog", "red"] and report["objects"] == 5
    a, b, c, plain = report["variants"]
    assert plain["run"] is None and "has no detector" in plain["error"]
    assert a["finds"] is None and [text["text"] for text in a["run"]["texts"]] == report["texts"]
    round_dogs, reds = b["finds"]["texts"]
    assert (b["finds"]["found"], b["finds"]["missed"], b["finds"]["extra"]) == (5, 0, 0)
    assert (round_dogs["found"], reds["found"]) == (4, 1)
    assert 0.9 < reds["iou"] <= 1 and reds["worst_iou"] <= reds["iou"]
    assert [entry["object"] for entry in round_dogs["objects"]] == [1, 3, 4, 5]
    ious = [entry["iou"] for text in (round_dogs, reds) for entry in text["objects"]]
    assert b["agreement"]["iou"] == pytest.approx(np.mean(ious))
    own = {entry["object"]: entry for text in a["run"]["texts"] for entry in text["objects"]}
    assert all(own[entry["object"]]["first_frame"] == entry["first_frame"] for entry in round_dogs["objects"])
    assert c["finds"]["missed"] > 0 and c["finds"]["extra"] > 0
    # What was timed is the loop with the detector, not the tracker without an object.
    for variant in (a, b, c):
        assert {"detector", "detector_masks", "memory_attention"} <= set(dict(variant["timing"]["stages_s"]))
    assert a["run"]["scores"]["objects_by"] == "overlap"
    page = (workshop.folder / "found" / "ab" / "index.html").read_text()
    assert "What was found" in page and "“round dog”" in page and "of the ground truth, not in the baseline" in page

    # What is there is used again, and another text is another run.
    again, same = compare(workshop, "ab", *TEXTS, *variants, "--gt", truth, *gates)
    assert again.stderr.count("its run is there") == 3 and "timing: it is there" in again.stderr
    assert same["variants"] == report["variants"]
    other, _ = compare(workshop, "ab", "--text", "a dog", *variants, "--gt", truth)
    assert "is there already" not in other.stderr


def test_a_detector_that_finds_nothing_has_nothing_to_compare(workshop):
    variants = [f"--variant=a={bundle(workshop, 1)}", f"--variant=b={bundle(workshop, 1, 'fp16')}"]
    done, report = compare(workshop, "none", "--text", "a dog", "--follow=score_threshold=1.1", *variants)
    assert done.returncode == 0, done.stderr
    assert report["objects"] == 0 and report["variants"][1]["finds"]["found"] == 0
    assert "a found no object, so there is nothing" in done.stdout


def test_wrong_uses_of_ab_are_refused(workshop):
    path = bundle(workshop, 1)
    variants = [f"--variant=a={path}", f"--variant=b={path},chunk=1"]
    clip, out = workshop.synthetic(24), workshop.folder / "found" / "refused"
    for more, words in (
        (["--text", "bear", "--box", "1,1,9,9"], ["--text", "--box"]),
        (["--box", "1,1,9,9", "--require", "b.missed<=0"], ["missed", "--text"]),
        (["--text", "bear", "--require", "a.extra<=0"], ["a is the baseline"]),
        (["--text", "bear", "--require", "b.gt_extra<=0"], ["--gt"]),
        (["--box", "1,1,9,9", "--follow", "hotstart_delay=0"], ["--text"]),
    ):
        done = ran("ab", clip, *variants, "--out", out, *more)
        assert done.returncode == 2, more
        for word in words:
            assert word in done.stderr, (more, done.stderr)
        assert not out.exists(), more
