"""The small model's clips and training: a clip follows from its seed, and what trains is what the reference runs."""

import itertools
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from preloaded import run_module
from safetensors.torch import load_file, save_file
from snow_export import reference
from snow_export.errors import ExportError
from snow_export.outputs import replace_between
from snow_export.random_checkpoint import randomise
from snow_export.tiny import batches, calibrate_tracker
from snow_export.tiny.batches import (
    MADE_FRAMES,
    MADE_SIDE,
    MOST_OBJECTS,
    SCHEDULES,
    Batch,
    Clips,
    Pool,
    View,
    make_batch,
    view_at,
    windows,
    with_visitors,
)
from snow_export.tiny.clips import LOOKALIKES, Clip, Settings, make_clip
from snow_export.tiny.demo import SEED, write_demo
from snow_export.tiny.demo import SETTINGS as DEMO
from snow_export.tiny.evaluate import Figures, run_onnx
from snow_export.tiny.figures import BEGIN, END
from snow_export.tiny.model import new_model, resized, trained_model
from snow_export.tiny.publish import add_to
from snow_export.tiny.rollout import Prediction, Prompt, Tracker, loss_of, mask_loss, roll_out
from snow_export.tiny.train import Training
from snow_export.tiny.validate import Validation, region

PUBLISHED = Path("models/snow-tiny/checkpoint")
STILL = Clip(np.zeros((1, 1, 1, 3), np.uint8), np.zeros((1, 1, 1), np.uint8), np.zeros((1, 2), np.int32))


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


def test_shares_of_training_clips_have_the_settings_that_are_asked_for(monkeypatch):
    """A share of `usual` and one of `lookalikes`; what a clip's settings are does not move its seed."""
    asked = []
    monkeypatch.setattr(batches, "make_clip", lambda seed, settings: asked.append((seed, settings)) or STILL)
    made = {"side": MADE_SIDE, "frames": MADE_FRAMES}
    kinds = (Settings(**made), replace(LOOKALIKES, **made))
    seeds = []
    for shares, wanted in (
        ((0.0, 0.0), (0, 0)),
        ((0.3, 0.0), (60, 0)),
        ((0.2, 0.5), (40, 100)),
        ((0.4, 0.6), (80, 120)),
    ):
        asked.clear()
        clips = Clips(7, 1, *shares)
        for number in range(200):
            clips[number]
        counts = [sum(settings == kind for _, settings in asked) for kind in kinds]
        assert all(abs(got - due) <= 25 for got, due in zip(counts, wanted, strict=True)), (shares, counts)
        assert all(due or not got for got, due in zip(counts, wanted, strict=True)), (shares, counts)
        assert sum(wanted) < 200 or sum(counts) == 200
        seeds.append([seed for seed, _ in asked])
    assert all(other == seeds[0] for other in seeds)


def test_visitors_stand_in_front_of_windows_as_they_are_elsewhere():
    """Nothing changes but where a visitor is, and its pixels are those of a clip of the pool."""
    pool, clips = Pool(2, torch.device("cpu"), frames=4, side=64), []
    for number in range(2):
        ids = torch.zeros(4, 64, 64, dtype=torch.uint8)
        ids[:, 20:44, 20:44] = 1
        clips.append((torch.full((4, 64, 64, 3), 100 * number, dtype=torch.uint8), ids))
        clips[-1][0][ids == 1] = 50 + 100 * number
        pool.add(number, *clips[-1])
    images, ids, slots = windows(pool, 4, 64, 40, np.random.default_rng(1))
    seen, seen_ids = with_visitors(pool, images, ids, slots, np.random.default_rng(2))
    visited = seen_ids == MOST_OBJECTS
    outside = ~visited.unsqueeze(2).expand_as(images)
    assert torch.equal(seen[outside], images[outside])
    assert torch.equal(seen_ids[~visited], ids[~visited])
    inside = seen.permute(0, 1, 3, 4, 2)[visited]
    nearest = torch.minimum((inside - 50).abs(), (inside - 150).abs())
    assert (nearest < 1).float().mean() > 0.8, "more than borders are of something else"
    share = visited.flatten(1).any(dim=1).float().mean()
    assert 0.3 < share < 0.7


def test_plain_windows_are_clips_as_they_are():
    """Whole frames at their pace and in their order, mirrored or not."""
    pool, made = Pool(3, torch.device("cpu"), frames=6, side=64), np.random.default_rng(1)
    for number in range(3):
        frames = torch.from_numpy(made.integers(0, 256, (6, 64, 64, 3), np.uint8))
        pool.add(number, frames, torch.from_numpy(made.integers(1, 3, (6, 64, 64), np.uint8)))
    batch, _ = make_batch(pool, View(4, 64, 12, 24, 0, ("box",), plain=True), 5, seed=3)
    places = set()
    for window, truth in zip(batch.window_of.tolist(), batch.truth, strict=True):
        seen, place = batch.images[window], None
        for slot, start, mirrored in itertools.product(range(3), range(3), (False, True)):
            frames, ids = pool.frames[slot, start : start + 4], pool.ids[slot, start : start + 4]
            if torch.equal(seen, frames.flip(2) if mirrored else frames):
                place, ids = (slot, start, mirrored), ids.flip(2) if mirrored else ids
                assert torch.equal(truth, ids == 1) or torch.equal(truth, ids == 2)
        assert place is not None
        places.add(place)
    assert {mirrored for *_, mirrored in places} == {False, True}
    assert len({start for _, start, _ in places}) > 1


def test_a_followed_object_learns_from_the_mask_that_is_taken_too():
    """The second of three candidates is right, and the third, which is wrong, is taken."""
    truth = torch.zeros(1, 8, 8)
    truth[:, :, :4] = 1
    masks = torch.full((1, 4, 8, 8), -4.0)
    masks[0, 2, :, :4] = 4.0
    masks[0, 3, :, 4:] = 4.0
    right, wrong = mask_loss(masks[:, 2], truth), mask_loss(masks[:, 3], truth)
    masks.requires_grad_(True)
    prediction = Prediction(masks, torch.tensor([[0.0, 0.1, 0.6, 0.9]]), torch.full((1, 1), 50.0), several=True)
    iou_loss = (0.1 + 0.4 + 0.9) / 3
    for followed, expected in ((False, right), (True, (right + wrong) / 2)):
        loss, iou = loss_of(prediction, truth, followed)
        assert torch.allclose(loss, expected + iou_loss, atol=1e-6) and iou.item() == 0
        (gradient,) = torch.autograd.grad(loss.sum(), masks)
        moved = gradient.flatten(2).abs().sum(dim=2)[0] > 0
        assert moved.tolist() == [False, False, True, followed]


def test_a_backbone_that_is_kept_stays_and_all_else_learns():
    training = Training(trained_model(PUBLISHED), torch.device("cpu"), 1e-3, graphs=False, keep_backbone=True)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    truth = torch.zeros(1, 3, 224, 224, dtype=torch.bool)
    truth[:, :, 60:120, 60:150] = True
    images = (255 * truth.unsqueeze(4).expand(-1, -1, -1, -1, 3)).to(torch.uint8)
    box = torch.tensor([[[60.0, 60.0], [150.0, 120.0]]])
    batch = Batch(images, truth, torch.tensor([0]), torch.ones(1), box, torch.tensor([[2, 3]]), by_mask=False)
    training.gradient(batch, "box")
    training.update(1e-3)
    changed = {name for name, value in training.model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("vision_encoder.backbone") for name in changed)
    for part in ("vision_encoder.neck", "memory_attention", "mask_decoder", "memory_encoder"):
        assert any(name.startswith(part) for name in changed), part


def test_validation_measures_what_the_published_tracker_does():
    model = trained_model(PUBLISHED)
    figures = Validation(1, 1, torch.device("cpu")).figures({224: Tracker(resized(model, 224)).train()})
    assert 0.5 < figures["j_224"] <= 1 and 0 <= figures["over_0.7_224"] <= 1


def test_region_of_masks_with_known_values():
    """Half of an object, a mask that a low score hides, nothing where nothing is, something where nothing is."""
    masks = torch.full((4, 4, 8, 8), -5.0)
    masks[0, 0, :, :2] = 5.0
    masks[1, 0] = masks[3, 0] = 5.0
    score = torch.tensor([[3.0], [-3.0], [3.0], [3.0]])
    truth = torch.zeros(4, 8, 8, dtype=torch.bool)
    truth[0, :, :4] = truth[1, :, :4] = True
    prediction = Prediction(masks, torch.zeros(4, 4), score, several=False)
    assert region(prediction, truth).tolist() == [0.5, 0.0, 1.0, 0.0]


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


def test_only_runs_that_came_to_their_end_are_not_made_again(tmp_path):
    clips = [tmp_path / "clips" / name for name in ("done", "interrupted", "new")]
    for name in ("done", "interrupted"):
        run = tmp_path / "out" / f"{name}.run"
        run.mkdir(parents=True)
        (run / "run.json").write_text(json.dumps({"status": name}))
    called = tmp_path / "called"
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$2" >> {called}\n')
    program.chmod(0o755)
    run_onnx(clips, tmp_path / "out", program, tmp_path / "bundle")
    assert sorted(called.read_text().split()) == [str(clip / "frames") for clip in clips[1:]]


def test_a_tracker_is_as_sure_as_its_scores_on_hidden_frames_ask_for(tmp_path):
    """Object 1 is hidden on frame 1 and object 2 on frames 2 and 3; frame 0 does not count."""
    clip, run = tmp_path / "clips" / "7", tmp_path / "runs" / "7"
    (clip / "gt").mkdir(parents=True)
    run.mkdir(parents=True)
    ids = [(0, 1, 2), (0, 2, 2), (0, 1, 1), (1, 1, 1)]
    given = [(9.0, 9.0), (-2.0, 3.0), (4.0, -1.0), (5.0, 0.5)]
    for frame, (row, pair) in enumerate(zip(ids, given, strict=True)):
        Image.fromarray(np.array([row], np.uint8)).save(clip / "gt" / f"{frame:05d}.png")
        tensors = {"object_ids": torch.tensor([1, 2]), "object_score": torch.tensor(pair).view(2, 1)}
        save_file(tensors, run / f"{frame:05d}.safetensors")
    hidden, shown = calibrate_tracker.scores([clip], tmp_path / "runs")
    assert (sorted(hidden), sorted(shown)) == ([-2.0, -1.0, 0.5], [3.0, 4.0, 5.0])
    for share, below in ((1 / 3, 1), (0.5, 2), (2 / 3, 2), (0.7, 3), (1.0, 3)):
        shift = calibrate_tracker.shift_for(hidden, share)
        assert sum(score + shift < 0 for score in hidden) == below
        assert -shift == pytest.approx(sorted(hidden)[below - 1])

    save_file({"bias": torch.tensor([1.5]).half(), "other": torch.tensor([2.0])}, tmp_path / "model.safetensors")
    add_to(tmp_path, "bias", -0.25)
    changed = load_file(tmp_path / "model.safetensors")
    assert changed["bias"].dtype == torch.float16 and changed["bias"].tolist() == [1.25]
    assert changed["other"].tolist() == [2.0]


def test_an_interrupted_training_resumes_where_it_was(tmp_path):
    def train(out: Path, steps: int) -> dict:
        words = ["--device", "cpu", "--steps", steps, "--threads", 2, "--shrink", 48, "--pool", 2]
        run_module("snow_export.tiny.train", "--out", out, *words)
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
