"""The page of `snow-ort ab` with texts: what each variant found, in a headless Chromium."""

import base64
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from workshop import Workshop

ROOT = Path(__file__).resolve().parents[2]
FOLLOW = {"score_threshold": 0.1, "new_object_score": 0.3, "match_iou": 0.8, "recondition_every": 3, "max_objects": 5}
FOLLOW |= {"hotstart_delay": 0, "hotstart_unmatched": 0, "hotstart_duplicate": 0}


@pytest.fixture(scope="module")
def page(snow_ort, tmp_path_factory) -> Path:
    """A report of two texts: a variant that finds less, and one that finds other things."""
    pytest.importorskip("transformers")
    folder, workshop = tmp_path_factory.mktemp("found"), Workshop.of_session(tmp_path_factory)
    model, other = (workshop.bundle(workshop.video_checkpoint(n), 112, parts="tracker,detector") for n in (1, 3))
    variants = {"a": model, "b": f"{model},follow=max_objects=3", "c": other}
    command = [snow_ort, "ab", "demo/clip.mp4", "--max-frames", "12", "--out", str(folder / "report")]
    command += [f"--variant={name}={variant}" for name, variant in variants.items()]
    command += [f"--follow={name}={value}" for name, value in FOLLOW.items()]
    command += ["--text", "red bear", "--text", "<dog>", "--gt", "demo/gt"]
    command += ["--warm", "2", "--rounds", "2", "--block", "2", "--page-frames", "6"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder / "report" / "index.html"


def test_each_text_has_a_table_of_its_objects(page, browser):
    report = json.loads((page.parent / "report.json").read_text())
    a, b, c = report["variants"]
    headings = browser.run(
        "return [...document.querySelectorAll('[aria-labelledby=h-found] h3')].map(h => h.textContent)"
    )
    assert headings == ["“red bear”", "“<dog>”"]
    rows = "return [...document.querySelectorAll('[aria-labelledby=h-found] tbody tr')].map(r => r.textContent)"
    shown = browser.run(rows)
    own = sum(len(text["objects"]) for text in a["run"]["texts"])
    assert len(shown) == own + b["finds"]["extra"] + c["finds"]["extra"]
    assert sum("missed" in row for row in shown) >= 1 or c["finds"]["missed"] == 0
    assert sum("extra" in row for row in shown) == b["finds"]["extra"] + c["finds"]["extra"]
    names = browser.run("return [...document.querySelectorAll('.objects-key li')].map(i => i.textContent)")
    assert any("red bear" in name or "<dog>" in name for name in names), names
    assert len({name.split(":")[0] for name in names}) == len(names), "each number stands for one thing"
    assert browser.text("#h-objects") == "Each object of the ground truth"


def test_the_same_object_has_one_colour_in_all_pictures(page, browser):
    """The page's pictures carry the numbers of the key, not those of each run."""
    captions = browser.run("return [...document.querySelectorAll('#side figcaption')].map(c => c.textContent)")
    assert [caption.split(" · ")[0] for caption in captions] == ["a", "b", "c", "ground truth"]
    colours = """const of = s => [...document.querySelectorAll(s)].map(e => getComputedStyle(e).backgroundColor
          .match(/\\d+/g).slice(0, 3).map(Number));
        return [of('[aria-labelledby=h-found] tbody .swatch'), of('.objects-key .swatch')]"""
    found, key = ({tuple(colour) for colour in some} for some in browser.run(colours))
    assert found <= key
    painted: dict[str, set] = {}
    for frame in json.loads(browser.run("return document.getElementById('data').textContent"))["frames"]:
        for source, url in frame["masks"].items():
            picture = np.array(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))
            painted.setdefault(source, set()).update(map(tuple, picture[picture[..., 3] > 0][:, :3].tolist()))
    assert painted["a"] and all(colours <= key for colours in painted.values())
    finds = json.loads((page.parent / "report.json").read_text())["variants"][2]["finds"]
    if finds["found"] == 0:
        assert not painted["c"] & painted["a"], "what only the variant found has other colours"


@pytest.mark.parametrize("width", [360, 1100])
def test_it_fits_the_screen(page, browser, width, tmp_path):
    try:
        browser.look(width, 800, False)
        browser.open(page)
        wide = browser.run("return document.scrollingElement.scrollWidth")
        assert wide <= width, f"the page is {wide} pixels wide"
        assert browser.log("browser") == []
        browser.picture(tmp_path / "page.png")
    finally:
        browser.look(1100, 900)
