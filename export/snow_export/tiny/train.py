"""Trains snow-tiny: `python -m snow_export.tiny.train --out DIR`. Interrupt it at any time; the same command resumes.

Deterministic for a seed: the clip of a step depends on the step alone, and so does every choice of prompts.
"""

import argparse
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from .clips import SEEDS, Settings, make_clip
from .model import new_model, resized
from .rollout import Prompt, Tracker, loss_of, roll_out, targets


@dataclass(frozen=True)
class Phase:
    """A stretch of training: `frames` a clip, `clips` a step, until step `until`; `side` px."""

    until: int
    frames: int
    clips: int
    side: int


# Single frames first: a tracker that cannot segment has nothing to remember.
SCHEDULE = (
    Phase(4000, 1, 16, 224),
    Phase(7000, 3, 4, 224),
    Phase(10000, 5, 3, 224),
    Phase(13000, 8, 2, 224),
    Phase(15000, 5, 2, 336),
    Phase(17000, 10, 2, 224),
    Phase(18000, 6, 2, 336),
)


def phase_at(step: int) -> Phase | None:
    """The phase that a step belongs to; None after the last."""
    return next((phase for phase in SCHEDULE if step < phase.until), None)


def batch_of(step: int, seed: int, most_clips: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Frames u8 `[clips, frames, side, side, 3]` and ids of a step."""
    phase = phase_at(step)
    random = np.random.default_rng((seed, step))
    frames = phase.frames
    settings = Settings(side=phase.side, frames=frames, speed=float(random.uniform(0.01, 0.05)))
    first, last = SEEDS["train"]
    clips = [make_clip(int(random.integers(first, last + 1)), settings) for _ in range(min(phase.clips, most_clips))]
    return np.stack([clip.frames for clip in clips]), np.stack([clip.ids for clip in clips])


def prompts_of(ids: np.ndarray, step: int, seed: int, most: int) -> tuple[torch.Tensor, torch.Tensor, Prompt] | None:
    """Objects to follow: clips `[N]`, ids `[N]`, and a prompt of one kind for all; None if none is visible."""
    random = np.random.default_rng((seed, step, 1))
    clips, objects = [], []
    for clip in range(len(ids)):
        values, counts = np.unique(ids[clip, 0], return_counts=True)
        found = [int(v) for v, c in zip(values, counts, strict=True) if v > 0 and c >= 60]
        random.shuffle(found)
        for value in found[:most]:
            clips.append(clip)
            objects.append(value)
    if not objects:
        return None
    kind = random.choice(["box", "box", "box", "point", "points"])
    coords, labels = [], []
    for clip, value in zip(clips, objects, strict=True):
        inside = np.argwhere(ids[clip, 0] == value)
        if kind == "box":
            (top, left), (bottom, right) = inside.min(axis=0), inside.max(axis=0) + 1
            jitter = random.normal(0, 0.04, 4) * np.array([right - left, bottom - top] * 2)
            box = np.array([left, top, right, bottom]) + jitter
            coords.append(box.clip(0, ids.shape[-1]).reshape(2, 2))
            labels.append([2, 3])
            continue
        row = inside[random.integers(len(inside))]
        points, marks = [row[::-1]], [1]
        if kind == "points":
            points.append(inside[random.integers(len(inside))][::-1])
            outside = np.argwhere(ids[clip, 0] != value)
            points.append(outside[random.integers(len(outside))][::-1])
            marks += [1, 0]
        coords.append(np.array(points))
        labels.append(marks)
    prompt = Prompt(torch.tensor(np.array(coords), dtype=torch.float32), torch.tensor(labels))
    return torch.tensor(clips), torch.tensor(objects), prompt


def step_loss(tracker: Tracker, frames: np.ndarray, ids: np.ndarray, step: int, seed: int):
    """Mean loss and mean IoU (first frame, later frames) of a step; None if nothing was visible."""
    chosen = prompts_of(ids, step, seed, most=3)
    if chosen is None:
        return None
    clip_of, objects, prompt = chosen
    predictions = roll_out(tracker, torch.from_numpy(frames), clip_of, prompt)
    truth = torch.from_numpy(ids)[clip_of]
    losses, ious = [], []
    for frame, prediction in enumerate(predictions):
        target = targets(truth[:, frame] == objects.view(-1, 1, 1), tracker.side, prediction.masks.shape[-1])
        loss, iou = loss_of(prediction, target)
        losses.append(loss.mean())
        ious.append(iou)
    later = torch.cat(ious[1:]) if len(ious) > 1 else torch.tensor([torch.nan])
    return torch.stack(losses).mean(), ious[0].nanmean().item(), later.nanmean().item()


def learning_rate(step: int, peak: float) -> float:
    """Warm-up, then a cosine to a hundredth over the whole schedule."""
    warm = min(1.0, (step + 1) / 200)
    return peak * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(step / SCHEDULE[-1].until, 1.0))))


def save(folder: Path, model, optimiser, step: int, options: dict) -> None:
    """Writes the checkpoint and what a resume needs; each file appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder / "checkpoint.partial")
    state = {"step": torch.tensor(step)}
    for index, entry in optimiser.state_dict()["state"].items():
        state |= {f"{index}.{key}": value for key, value in entry.items()}
    save_file(state, folder / "optimiser.safetensors.partial")
    target = folder / "checkpoint"
    target.mkdir(exist_ok=True)
    for path in (folder / "checkpoint.partial").iterdir():
        path.rename(target / path.name)
    (folder / "checkpoint.partial").rmdir()
    (folder / "optimiser.safetensors.partial").rename(folder / "optimiser.safetensors")
    (folder / "options.json").write_text(json.dumps(options))


def resume(folder: Path, model, optimiser) -> int:
    """Loads what `save` wrote; the next step, 0 if there is nothing."""
    if not (folder / "optimiser.safetensors").exists():
        return 0
    # Saved names carry the prefixes of a full SAM3 checkpoint; only the library knows how to take them off.
    model.load_state_dict(type(model).from_pretrained(folder / "checkpoint").state_dict())
    state = load_file(folder / "optimiser.safetensors")
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in state.items():
        # Parameters that no step has moved yet (the memory, while frames are single) have no entry.
        index, _, key = name.partition(".")
        if key:
            entries.setdefault(int(index), {})[key] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": entries, "param_groups": groups})
    return int(state["step"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=SCHEDULE[-1].until, help="stop after this step of the schedule")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--clips", type=int, default=64, help="at most this many clips a step, for quick trials")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    model = new_model(arguments.seed).train()
    # The tracker drops the fourth pyramid level, so nothing would ever move it.
    model.vision_encoder.neck.fpn_layers[3].requires_grad_(False)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=arguments.rate, weight_decay=0.01, betas=(0.9, 0.98))
    start = resume(arguments.out, model, optimiser)
    trackers: dict[int, Tracker] = {}
    log = arguments.out / "curve.jsonl"
    arguments.out.mkdir(parents=True, exist_ok=True)
    begun, since, window = time.monotonic(), time.monotonic(), []
    step = start
    with ProcessPoolExecutor(1) as pool:
        ahead = {
            s: pool.submit(batch_of, s, arguments.seed, arguments.clips) for s in range(start, start + 3) if phase_at(s)
        }
        while phase_at(step) is not None and step < arguments.steps:
            frames, ids = ahead.pop(step).result()
            if phase_at(step + 3) is not None:
                ahead[step + 3] = pool.submit(batch_of, step + 3, arguments.seed, arguments.clips)
            side = phase_at(step).side
            if side not in trackers:
                trackers[side] = Tracker(model if side == model.config.image_size else resized(model, side)).train()
            with torch.autocast("cpu", torch.bfloat16):
                result = step_loss(trackers[side], frames, ids, step, arguments.seed)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, arguments.rate)
            if result is not None:
                loss, first, later = result
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(learned, 1.0)
                optimiser.step()
                window.append((float(loss.detach()), first, later))
            step += 1
            stop = (time.monotonic() - begun) / 60 > arguments.minutes
            if step % 50 == 0 or stop:
                mean = np.nanmean(np.array(window), axis=0) if window else [math.nan] * 3
                seconds = (time.monotonic() - since) / max(len(window), 1)
                values = {"step": step, "loss": mean[0], "iou_first": mean[1], "iou_later": mean[2], "s": seconds}
                values = {key: round(float(value), 4) for key, value in values.items()}
                print(json.dumps(values), flush=True)
                with log.open("a") as file:
                    file.write(json.dumps(values) + "\n")
                since, window = time.monotonic(), []
            if step % 500 == 0 or stop:
                save(arguments.out, model, optimiser, step, {"schedule": [asdict(phase) for phase in SCHEDULE]})
            if stop:
                break
    save(arguments.out, model, optimiser, step, {"schedule": [asdict(phase) for phase in SCHEDULE]})


if __name__ == "__main__":
    main()
