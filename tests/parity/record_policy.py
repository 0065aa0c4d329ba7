"""Records what the reference recalls on every frame of a few scenarios: the golden files of the Rust policy tests.

    python tests/parity/record_policy.py tests/fixtures/policy

The reference's own methods are watched while they run; nothing of this project decides what is written.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from snow_export.random_checkpoint import randomise, small_config
from snow_export.reference import load_processor
from transformers import Sam3TrackerVideoModel

# Scenario -> frames of the clip, and for each object the frames on which it is prompted. With "ahead", all prompts are
# given before tracking starts, so that conditioning frames may lie in the future.
SCENARIOS = {
    "one-object": {"frames": 24, "prompts": {1: [0]}},
    "short-clip": {"frames": 9, "prompts": {1: [0]}},
    "two-frames": {"frames": 2, "prompts": {1: [0]}},
    "late-object": {"frames": 20, "prompts": {1: [0], 2: [7]}},
    "refined": {"frames": 22, "prompts": {1: [0, 9], 2: [0]}},
    "many-conditioning-frames": {
        "frames": 30,
        "prompts": {1: [0, 3, 4, 8, 12, 20, 21]},
    },
    "conditioning-frames-ahead": {
        "frames": 26,
        "prompts": {1: [0, 5, 9, 14, 18, 22], 2: [10]},
        "ahead": True,
    },
}


class Recorder:
    """Watches the reference's recall."""

    def __init__(self, model, session, parameters: dict):
        self.model, self.session = model, session
        self.records = []
        self.pending = {}
        gather, build, process = (
            model._gather_memory_frame_outputs,
            model._build_memory_attention_inputs,
            model._process_object_pointers,
        )

        def watched_gather(inference_session, obj_idx, frame_idx, *args, **kwargs):
            outputs = inference_session.output_dict_per_obj[obj_idx]
            self.pending = {
                "object": obj_idx,
                "frame": frame_idx,
                "cond": list(outputs["cond_frame_outputs"]),
                "tracked": sorted(outputs["non_cond_frame_outputs"]),
                "cond_pointers": [],
                "pointers": [],
            }
            return gather(inference_session, obj_idx, frame_idx, *args, **kwargs)

        def watched_build(recalled, *args, **kwargs):
            self.pending["memories"] = [
                [self.frame_of(output), (offset - 1) % parameters["num_maskmem"]]
                for offset, output in recalled
                if output is not None
            ]
            if not self.pending["memories"]:
                raise RuntimeError("nothing recalled")
            self.records.append(self.pending)
            return build(recalled, *args, **kwargs)

        def watched_process(offsets, tokens, horizon, *args, **kwargs):
            record = self.records[-1]
            for offset, token in zip(offsets, tokens, strict=True):
                frame, kind = self.owner_of(token)
                record["cond_pointers" if kind == "cond_frame_outputs" else "pointers"].append([frame, offset])
            record["horizon"] = horizon
            return process(offsets, tokens, horizon, *args, **kwargs)

        model._gather_memory_frame_outputs = watched_gather
        model._build_memory_attention_inputs = watched_build
        model._process_object_pointers = watched_process

    def frame_of(self, output: dict) -> int:
        for frames in self.session.output_dict_per_obj[self.pending["object"]].values():
            for frame, candidate in frames.items():
                if candidate is output:
                    return frame
        raise RuntimeError("an output that belongs to no frame")

    def owner_of(self, token) -> tuple[int, str]:
        for kind, frames in self.session.output_dict_per_obj[self.pending["object"]].items():
            for frame, candidate in frames.items():
                if candidate["object_pointer"] is token:
                    return frame, kind
        raise RuntimeError("a pointer that belongs to no frame")


@torch.inference_mode()
def record(scenario: dict) -> dict:
    """One scenario's golden file."""
    config = small_config(size=28, window=2)
    torch.manual_seed(0)
    model = Sam3TrackerVideoModel(config).eval()
    randomise(model, seed=0)
    processor = load_processor(28, [0.5] * 3, [0.5] * 3)
    frames = [np.full((28, 28, 3), 9 * frame % 255, np.uint8) for frame in range(scenario["frames"])]
    session = processor.init_video_session(video=frames)
    parameters = {
        "num_maskmem": config.num_maskmem,
        "max_cond_frames": config.max_cond_frame_num,
        "max_object_pointers": config.max_object_pointers_in_encoder,
    }
    recorder = Recorder(model, session, parameters)

    def prompt(frame: int) -> None:
        for object_id, prompted in scenario["prompts"].items():
            if frame in prompted:
                processor.add_inputs_to_inference_session(
                    session,
                    frame_idx=frame,
                    obj_ids=object_id,
                    input_boxes=[[[3.0, 3.0, 20.0, 20.0]]],
                )
                model(inference_session=session, frame_idx=frame)

    ahead = scenario.get("ahead", False)
    if ahead:
        for frame in range(len(frames)):
            prompt(frame)
    recorder.records.clear()
    for frame in range(len(frames)):
        if not ahead:
            prompt(frame)
            # Runs that a prompt of another object triggers are repeated below and then count.
            recorder.records = [one for one in recorder.records if one["frame"] != frame]
        model(inference_session=session, frame_idx=frame)
    return {
        "parameters": parameters,
        "num_frames": len(frames),
        "recalls": recorder.records,
    }


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, scenario in SCENARIOS.items():
        golden = record(scenario)
        lines = ",\n  ".join(json.dumps(one, separators=(",", ":")) for one in golden.pop("recalls"))
        head = json.dumps(golden, separators=(",", ":"))[:-1]
        (folder / f"{name}.json").write_text(f'{head},"recalls":[\n  {lines}\n]}}\n')
        print(name)


if __name__ == "__main__":
    main()
