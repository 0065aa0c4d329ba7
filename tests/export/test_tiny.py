"""The small model's clips and training: a clip follows from its seed, and what trains is what the reference runs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from snow_export import reference
from snow_export.errors import ExportError
from snow_export.outputs import replace_between
from snow_export.random_checkpoint import randomise
from snow_export.tiny.batches import SCHEDULES, Clips, Pool, make_batch, view_at
from snow_export.tiny.clips import Settings, make_clip
from snow_export.tiny.demo import SEED, write_demo
from snow_export.tiny.demo import SETTINGS as DEMO
from snow_export.tiny.evaluate import Figures
from snow_export.tiny.figures import BEGIN, END
from snow_export.tiny.model import new_model
from snow_export.tiny.rollout import Prompt, Tracker, roll_out


def test_a_clip_is_a_function_of_its_seed():
    first, second, other = (make_clip(seed, Settings(frames=3)) for seed in (150, 150, 151))
    assert np.array_equal(first.frames, second.frames)
    assert np.array_equal(first.ids, second.ids)
    assert not np.array_equal(first.frames, other.frames)


def test_objects_show_move_and_hide():
    settings = Settings(frames=24)
    clips = [make_clip(seed, settings) for seed in range(160, 172)]
    moved = hidden = 0
    for clip in clips:
        present = [set(np.unique(ids)) - {0} for ids in clip.ids]
        assert present[0], "a clip without a visible object on its first frame"
        moved += any((clip.ids[0] != ids).mean() > 0.02 for ids in clip.ids[1:])
        hidden += any(present[0] - later for later in present)
    assert moved >= 10
    assert hidden >= 2, "no object is ever lost from sight"


def test_training_runs_what_the_reference_runs():
    """The rollout keeps memories in float32, so that gradients pass; that is all that may differ."""
    model = new_model(3)
    randomise(model, 3)
    clip = make_clip(150, Settings(frames=6))
    boxes = [[20.0, 30.0, 120.0, 140.0], [60.0, 60.0, 200.0, 180.0]]
    prompts = [{"frame": 0, "object": i + 1, "box": box} for i, box in enumerate(boxes)]
    processor = reference.load_processor(224, [0.5] * 3, [0.5] * 3)
    model.eval()
    wanted = list(reference.roll_out(model, processor, list(clip.frames), prompts, Path(".")))
    tracker = Tracker(model).eval()
    tracker.vision.fold()
    tracker.attention.fold()
    prompt = Prompt(torch.tensor(boxes).view(2, 2, 2), torch.tensor([[2, 3], [2, 3]]))
    with torch.no_grad():
        got = roll_out(tracker, torch.from_numpy(clip.frames)[None], torch.tensor([0, 0]), prompt)
    for (frame, _, masks, scores), prediction in zip(wanted, got, strict=True):
        assert (scores > 0).all()
        distance = (prediction.mask() - masks).norm() / masks.norm()
        assert distance < (1e-5 if frame == 0 else 5e-3), f"frame {frame}: {distance:.1e}"


def test_prompts_point_at_their_objects():
    """In every view and of every kind: boxes around, positive points inside, negative points outside."""
    pool, clips = Pool(3, torch.device("cpu")), Clips(5)
    for number in range(3):
        pool.add(number, *clips[number])
    kinds = set()
    for step in (*range(0, 40), *range(5000, 5004), *range(12000, 12004)):
        view = view_at(SCHEDULES["whole"], step)
        batch, kind = make_batch(pool, view, step, seed=5, shrink=8)
        kinds.add((kind, batch.images.shape[2]))
        assert batch.images.shape[1] == view.frames
        assert batch.images.shape[2] == view.side
        assert batch.truth.shape[1:] == batch.images.shape[1:4]
        for n in range(len(batch.weight)):
            if not batch.weight[n]:
                continue
            inside = batch.truth[n, 0]
            assert inside.sum() >= 59
            rows, columns = inside.nonzero(as_tuple=True)
            for (x, y), label in zip(batch.coords[n].tolist(), batch.labels[n].tolist(), strict=True):
                if label in (0, 1):
                    assert bool(inside[int(y), int(x)]) == bool(label), (step, kind)
            if kind == "box":
                (left, top), (right, bottom) = batch.coords[n].tolist()
                wide, high = columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min()
                assert abs(left - columns.min()) <= 0.2 * wide and abs(right - columns.max() - 1) <= 0.2 * wide
                assert abs(top - rows.min()) <= 0.2 * high and abs(bottom - rows.max() - 1) <= 0.2 * high
            if kind == "mask":
                assert torch.equal(batch.prompt().masks[n] > 0, inside)
    assert {kind for kind, _ in kinds} == {"box", "point", "points", "mask"}
    assert {side for _, side in kinds} == {224, 336}


def test_figures_of_a_tracker_that_is_wrong_in_known_ways():
    """Two 10x10 objects over six frames: one never hidden and half found, one hidden twice and found again once."""
    truth = np.zeros((6, 10, 10), bool)
    truth[:, :4] = True
    areas = np.full(6, 40)
    half = truth.copy()
    half[:, 2:4] = False
    figures = Figures()
    figures.add(truth, areas, list(half), [5.0] * 6)
    assert figures.objects == [0.5] and figures.returns == [] and figures.hidden == []

    truth = np.zeros((12, 10, 10), bool)
    seen = [1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0]
    for frame, there in enumerate(seen):
        truth[frame, :4] = bool(there)
    masks = list(truth.copy())
    masks[8] = masks[9] = masks[10] = np.zeros((10, 10), bool)
    scores = [5.0] * 12
    scores[2] = -5.0
    figures = Figures()
    figures.add(truth, np.full(12, 40), masks, scores)
    assert figures.returns == [True, False]
    assert figures.hidden == [True, False, False, False]
    assert figures.objects == [8 / 11]
    assert figures.visible == [1, 1, 1, 1, 0, 0, 0]


def test_an_interrupted_training_resumes_where_it_was(tmp_path):
    def train(out: Path, steps: int) -> dict:
        command = [sys.executable, "-W", "ignore", "-m", "snow_export.tiny.train", "--out", str(out)]
        command += ["--device", "cpu", "--steps", str(steps), "--threads", "2", "--shrink", "48", "--pool", "5"]
        subprocess.run(command, check=True, capture_output=True)
        return load_file(out / "checkpoint" / "model.safetensors")

    whole = train(tmp_path / "whole", 3)
    train(tmp_path / "parts", 2)
    parts = train(tmp_path / "parts", 3)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_demonstration_is_what_was_drawn(tmp_path):
    """Its video has the clip's frames, and its prompts and ground truth name the same objects."""
    clip = make_clip(SEED, replace(DEMO, frames=5))
    write_demo(tmp_path, clip)
    prompts = json.loads((tmp_path / "prompts.json").read_text())
    objects = [prompt["object"] for prompt in prompts]
    assert len(objects) >= 3
    for frame, path in enumerate(sorted((tmp_path / "gt").iterdir())):
        ids = np.asarray(Image.open(path))
        for o in objects:
            assert np.array_equal(ids == o, clip.ids[frame] == o)
        assert set(np.unique(ids)) <= {0, *objects}
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "clip.mp4", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run([str(word) for word in command], check=True, capture_output=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(clip.frames.shape)
    assert np.abs(frames.astype(int) - clip.frames).mean() < 8


def test_an_occluder_that_stays_hides_for_longer():
    def hidden(staying: float) -> int:
        settings = Settings(side=96, frames=30, objects=(1, 1), meeting=1.0, occluders=0.0, staying=staying)
        clips = [make_clip(seed, settings) for seed in range(120, 140)]
        return sum(int((clip.seen()[:, 1] == 0).sum()) for clip in clips)

    assert hidden(1.0) > 1.3 * hidden(0.0)


def test_figures_are_written_between_the_marks_of_a_card(tmp_path):
    card = tmp_path / "README.md"
    card.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    replace_between(card, BEGIN, END, ["| new |"])
    assert card.read_text() == f"before\n{BEGIN}\n| new |\n{END}\nafter\n"
    card.write_text("no marks\n")
    with pytest.raises(ExportError, match="expected the lines"):
        replace_between(card, BEGIN, END, [])
    assert card.read_text() == "no marks\n"
