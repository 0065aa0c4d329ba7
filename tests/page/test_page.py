"""The page of `snow-ort ab`, in a headless Chromium: seen, clicked, dragged and typed at, as a person would."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RIGHT = "\ue014"


@pytest.fixture(scope="module")
def page(snow_ort, tmp_path_factory) -> Path:
    """A report on the demo clip: the small model against one whose masks mean nothing, and a variant that fails."""
    out = tmp_path_factory.mktemp("ab") / "report"
    tiny, random = "models/snow-tiny/snow-tiny-336-fp16", "tests/fixtures/snow-random-112-fp16"
    command = [snow_ort, "ab", "demo/clip.mp4", "--prompts", "demo/prompts.json", "--gt", "demo/gt", "--out", str(out)]
    for variant in (f"tiny={tiny}", f"random={random}", f"tight={tiny},mem-limit=1MiB"):
        command += ["--variant", variant]
    command += ["--max-frames", "10", "--warm", "2", "--rounds", "2", "--block", "2", "--page-frames", "6"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2 and "tight failed" in done.stderr, done.stderr
    assert "Stay with tiny" in done.stdout
    return out / "index.html"


def test_the_page_says_which_variant_and_why_one_failed(page, browser):
    report = json.loads((page.parent / "report.json").read_text())
    assert browser.text("#verdict") == report["verdict"]["sentence"]
    assert "tight failed" in browser.text(".warnings")
    assert "1.00 MiB" in browser.text("td.failed") and browser.seen("td.failed")
    plots = browser.run("return [...document.querySelectorAll('.plot svg')].map(s => s.getAttribute('aria-label'))")
    assert [plot.split(":")[0] for plot in plots] == [
        "J&F against ground truth over frames",
        "IoU with the baseline over frames",
    ]
    # Random weights track nothing: the line of the second variant lies low.
    assert "random mean 0." in plots[1]


def test_nothing_is_fetched_and_nothing_fails(page, browser):
    browser.log("performance"), browser.log("browser")
    browser.open(page)
    browser.click("#next")
    events = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in asked) <= 1
    assert [entry["message"] for entry in browser.log("browser")] == []


def test_frames_are_chosen_by_click_key_and_plot(page, browser):
    browser.open(page)
    shown = json.loads((page.parent / "report.json").read_text())["shown"]

    def current() -> int:
        where = browser.text("#where")
        pressed = browser.text('.chips [aria-pressed="true"]')
        assert pressed.split(" ")[0] == where.removeprefix("Frame ").split(":")[0], (pressed, where)
        return int(pressed.split(" ")[0])

    assert current() == shown[0]["frame"]
    ious = [frame["worst"]["iou"] for frame in shown if frame["among_worst"]]
    assert ious == sorted(ious) and len(ious) == 3
    assert f"object {shown[0]['worst']['object']} in random" in browser.text("#where")
    browser.click("#next")
    assert current() == shown[1]["frame"]
    browser.click(".chips button:last-child")
    assert current() == shown[-1]["frame"]
    browser.click("#previous")
    assert current() == shown[-2]["frame"]
    browser.press(RIGHT, "body")
    assert current() == shown[-1]["frame"]
    browser.press(RIGHT + RIGHT, "body")
    assert current() == shown[-1]["frame"], "the last frame is the end"
    # The slider has its own keys.
    browser.press("\ue011", "#pick")
    assert current() == shown[0]["frame"]
    browser.click("#order option[value=clip]")
    assert current() == shown[0]["frame"], "another order shows the same frame"
    browser.press("\ue010", "#pick")
    assert current() == max(frame["frame"] for frame in shown)
    # The left end of a plot is the first frame.
    browser.drag(".plot", 0.01, 0.01)
    assert current() == min(frame["frame"] for frame in shown)


def test_masks_are_beside_each_other_and_can_be_wiped_and_hidden(page, browser):
    browser.open(page)
    captions = browser.run("return [...document.querySelectorAll('#side figcaption')].map(c => c.textContent)")
    assert [caption.split(" · ")[0] for caption in captions] == ["tiny", "random", "ground truth"]
    loaded = "return [...document.querySelectorAll('#side img[src]')].every(i => i.complete && i.naturalWidth === 336)"
    assert browser.run(loaded)
    assert browser.seen("#side .mask")
    browser.click("#masks")
    assert not browser.seen("#side .mask")
    browser.press("m")
    assert browser.seen("#side .mask")

    assert not browser.seen("#stage")
    browser.click("#as-wipe")
    assert browser.seen("#stage") and not browser.seen("#side")
    assert browser.run("return [document.getElementById('left').value, document.getElementById('right').value]") == [
        "tiny",
        "random",
    ]
    cut = "return parseFloat(document.getElementById('over').style.clipPath.split(' ')[3])"
    assert browser.run(cut) == 50
    browser.drag("#stage .stack", 0.5, 0.8)
    assert abs(browser.run(cut) - 80) < 3
    browser.press("\ue010", "#divide")
    assert browser.run(cut) == 100
    browser.press("w")
    assert browser.seen("#side") and not browser.seen("#stage")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1100])
def test_it_fits_the_screen_in_light_and_dark(page, browser, width, dark, tmp_path):
    try:
        browser.look(width, 800, dark)
        browser.open(page)
        wide = browser.run("return document.scrollingElement.scrollWidth")
        assert wide <= width, f"the page is {wide} pixels wide"
        # What is to be touched is large enough to be hit.
        small = """return [...document.querySelectorAll('button, select, input[type=range]')]
            .filter(e => e.offsetParent && e.getBoundingClientRect().height < 32).map(e => e.id)"""
        assert browser.run(small) == []
        script = """const of = (e, name) => getComputedStyle(e)[name].match(/[\\d.]+/g).slice(0, 3).map(Number);
            const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
              .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
              .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const ground = light(of(document.body, 'backgroundColor'));
            return [ground, ...['#verdict', '.note', '.clip', 'td.failed'].map(s => {
              const ink = light(of(document.querySelector(s), 'color'));
              return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
            })]"""
        ground, *contrasts = browser.run(script)
        assert (ground < 0.1) == dark
        assert min(contrasts) >= 4.5, contrasts
        browser.picture(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 20_000
    finally:
        browser.look(1100, 900)
