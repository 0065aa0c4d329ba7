"""The small model's clips and training: a clip follows from its seed, and what trains is what the reference runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from snow_export import reference
from snow_export.random_checkpoint import randomise
from snow_export.tiny.clips import Settings, make_clip
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
    tracker.attention.fold()
    prompt = Prompt(torch.tensor(boxes).view(2, 2, 2), torch.tensor([[2, 3], [2, 3]]))
    with torch.no_grad():
        got = roll_out(tracker, torch.from_numpy(clip.frames)[None], torch.tensor([0, 0]), prompt)
    for (frame, _, masks, scores), prediction in zip(wanted, got, strict=True):
        assert (scores > 0).all()
        distance = (prediction.mask() - masks).norm() / masks.norm()
        assert distance < (1e-5 if frame == 0 else 5e-3), f"frame {frame}: {distance:.1e}"


def test_an_interrupted_training_resumes_where_it_was(tmp_path):
    def train(out: Path, steps: int) -> dict:
        command = [sys.executable, "-W", "ignore", "-m", "snow_export.tiny.train", "--out", str(out)]
        subprocess.run(
            [*command, "--steps", str(steps), "--threads", "2", "--clips", "1"], check=True, capture_output=True
        )
        return load_file(out / "checkpoint" / "model.safetensors")

    whole = train(tmp_path / "whole", 3)
    train(tmp_path / "parts", 2)
    parts = train(tmp_path / "parts", 3)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
