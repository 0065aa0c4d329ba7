"""Golden vectors of a bundle: what the unpatched reference computes on a made-up clip, stage by stage and rolled out.

Runs in a process of its own (`python -m snow_export.golden`) and imports nothing of the export's stages: methods of the
model are watched, none is replaced by other arithmetic.
"""

import argparse
import functools
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from .reference import load_processor, load_reference, roll_out

# Keys of the stage files: inputs and outputs of the graph of that role.
INPUT, OUTPUT = "in.", "out."


def make_clip(frames: int, width: int = 160, height: int = 120) -> tuple[list[np.ndarray], list[dict], np.ndarray]:
    """Three textured discs that move over a textured ground: frames u8 `[h, w, 3]`, prompts, index mask of frame 0."""
    random = np.random.default_rng(20240601)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    ground = 110 + 40 * np.sin(x / 7)[..., None] * np.cos(y / 5)[..., None]
    ground = ground + random.normal(0, 12, (height, width, 3))
    discs = [(40, 50, 22, 3.0, 1.0), (100, 60, 26, -2.0, 1.5), (75, 90, 16, 1.0, -3.0)]
    colours = random.uniform(20, 235, (3, 3))
    clip, ids = [], np.zeros((height, width), np.uint8)
    for frame in range(frames):
        image = ground.copy()
        for index, (cx, cy, radius, dx, dy) in enumerate(discs):
            inside = (x - cx - dx * frame) ** 2 + (y - cy - dy * frame) ** 2 < radius**2
            texture = 25 * np.sin((x - dx * frame) / (3 + index))[..., None]
            image = np.where(inside[..., None], colours[index] + texture, image)
            if frame == 0:
                ids[inside] = index + 1
        clip.append(image.clip(0, 255).astype(np.uint8))
    prompts = [
        {"frame": 0, "object": 1, "box": [18.0, 28.0, 62.0, 72.0]},
        {"frame": 0, "object": 2, "points": [[100.0, 60.0, 1], [20.0, 20.0, 0]]},
        {"frame": 0, "object": 3, "mask": "frame-0.png"},
    ]
    return clip, prompts, ids


class Watch:
    """Records what the last frame's stages took in and gave out, for the first object."""

    def __init__(self, model):
        self.model = model
        self.seen: dict[str, tuple] = {}
        for name in (
            "get_image_features",
            "_build_memory_attention_inputs",
            "_process_object_pointers",
            "_prepare_memory_conditioned_features",
            "_single_frame_forward",
            "_encode_new_memory",
        ):
            self._watch(name)

    def _watch(self, name: str) -> None:
        method = getattr(self.model, name)

        @functools.wraps(method)
        def watched(*args, **kwargs):
            result = method(*args, **kwargs)
            if name != "_single_frame_forward" or kwargs.get("input_masks") is None:
                # The first object of a frame; batched stages run once.
                self.seen.setdefault(name, (args, kwargs, result))
            return result

        setattr(self.model, name, watched)

    def clear(self) -> None:
        """Forgets a frame."""
        self.seen.clear()

    def stages(self, image: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
        """The graphs' inputs and outputs on the frame that was watched."""
        model = self.model
        config = model.config
        features = self.seen["get_image_features"][2].fpn_hidden_states
        features_nlc = features[-1].permute(1, 0, 2)
        shapes = [tuple(size) for size in model.backbone_feature_sizes]
        high_res = [x.permute(1, 2, 0).unflatten(2, shape) for x, shape in zip(features[:2], shapes[:2], strict=True)]
        shared = {"features_nlc": features_nlc, "high_res_0_nchw": high_res[0], "high_res_1_nchw": high_res[1]}
        vision = {INPUT + "image": image, **{OUTPUT + key: value for key, value in shared.items()}}
        if (backbone := self.seen["get_image_features"][2].last_hidden_state) is not None:
            vision[OUTPUT + "backbone_nlc"] = backbone
        vision[OUTPUT + "features_no_memory_nlc"] = features_nlc + model.no_memory_embedding

        recalled = self.seen["_build_memory_attention_inputs"][0][0]
        recalled = [(offset, output) for offset, output in recalled if output is not None]
        offsets, pointers, horizon = self.seen["_process_object_pointers"][0][:3]
        channels, hidden = config.memory_encoder_output_channels, model.hidden_dim
        splits = hidden // channels if channels < hidden else 1
        attention = {INPUT + "features_nlc": features_nlc}
        empty = torch.zeros(1, 0, channels)
        for slot in range(config.max_cond_frame_num + config.num_maskmem - 1):
            memory = recalled[slot][1]["maskmem_features"].permute(1, 0, 2) if slot < len(recalled) else empty
            attention[f"{INPUT}memory_{slot}"] = memory.float()
        conditioning = sum(1 for offset, _ in recalled if offset == 0)
        tokens = [pointer.reshape(1, splits, -1) for pointer in pointers]
        attention[INPUT + "pointers_cond"] = torch.cat(tokens[:conditioning], dim=1)
        by_distance = dict(zip(offsets[conditioning:], tokens[conditioning:], strict=True))
        for distance in range(1, config.max_object_pointers_in_encoder):
            attention[f"{INPUT}pointers_{distance}"] = by_distance.get(distance, empty)
        rows = [(offset - 1) % config.num_maskmem for offset, _ in recalled]
        attention[INPUT + "memory_time"] = torch.tensor([rows])
        attention[INPUT + "pointer_time"] = torch.tensor([offsets], dtype=torch.float32) / (horizon - 1)
        attention[INPUT + "value_padding"] = torch.zeros(1, 1, 0)
        conditioned = self.seen["_prepare_memory_conditioned_features"][2].flatten(2).transpose(1, 2)
        attention[OUTPUT + "conditioned_nlc"] = conditioned

        result = self.seen["_single_frame_forward"][2]
        size = config.image_size
        no_mask = {INPUT + "mask_prompt": torch.zeros(1, size, size), INPUT + "has_mask_prompt": torch.tensor([False])}
        multimask = self.seen["_single_frame_forward"][1]["multimask_output"]
        decoder = {
            INPUT + "embeddings_nlc": conditioned,
            INPUT + "high_res_0_nchw": high_res[0],
            INPUT + "high_res_1_nchw": high_res[1],
            INPUT + "point_coords": torch.zeros(1, 1, 2),
            INPUT + "point_labels": -torch.ones(1, 1, dtype=torch.int64),
            **no_mask,
            INPUT + "multimask": torch.tensor([bool(multimask)]),
            OUTPUT + "low_res_masks": result.pred_masks[:, 0],
            OUTPUT + "object_score": result.object_score_logits.flatten(),
            OUTPUT + "pointers": result.object_pointer.reshape(1, splits, -1),
        }
        memory = self.seen["_encode_new_memory"][2][0][:, :1].permute(1, 0, 2)
        encoder = {
            INPUT + "features_nlc": features_nlc,
            INPUT + "low_res_masks": result.pred_masks[:, 0],
            **no_mask,
            INPUT + "object_score": result.object_score_logits.flatten(),
            INPUT + "from_prompt": torch.tensor([False]),
            INPUT + "direct": torch.tensor([False]),
            OUTPUT + "memory_nlc": memory.float(),
        }
        return {
            "vision_encoder": vision,
            "memory_attention": attention,
            "mask_decoder": decoder,
            "memory_encoder": encoder,
        }


@torch.inference_mode()
def make_golden(checkpoint: str, size: int, preprocess: dict, frames: int, out: Path) -> None:
    """Writes `rollout.safetensors`, `prompts.json`, `frame-0.png` and one file a stage into `out`."""
    model = load_reference(checkpoint, size)
    processor = load_processor(size, preprocess["mean"], preprocess["std"])
    clip, prompts, ids = make_clip(frames)
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(out / "frame-0.png")
    (out / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n")
    rollout = {"frames": torch.from_numpy(np.stack(clip))}
    watch = Watch(model)
    for frame, object_ids, masks, scores in roll_out(model, processor, clip, prompts, out):
        rollout[f"{frame:05d}.low_res_masks"] = masks
        rollout[f"{frame:05d}.object_score"] = scores
        rollout["object_ids"] = torch.tensor(object_ids)
        print(f"golden frame {frame + 1} of {frames}", flush=True)
        if frame + 1 < frames:
            watch.clear()
    image = torch.from_numpy(clip[-1]).permute(2, 0, 1)
    image = processor.video_processor.resize(image, processor.video_processor.size)
    stages = watch.stages(image.permute(1, 2, 0)[None])
    for name, tensors in {"rollout": rollout, **stages}.items():
        save_file({key: value.contiguous() for key, value in tensors.items()}, out / f"{name}.safetensors")


def main() -> None:
    """Command line of the process that `snow-export` starts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--res", type=int, required=True)
    parser.add_argument("--preprocess", type=json.loads, required=True)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    make_golden(arguments.checkpoint, arguments.res, arguments.preprocess, arguments.frames, arguments.out)


if __name__ == "__main__":
    main()
