"""Checkpoints of the real classes with every parameter random: `python -m snow_export.random_checkpoint`.

Nothing here is trained: the point is that every tensor of the reference matters to the result, also those that the
classes initialise to zero or one, and that masks are neither empty nor full.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import CLIPTokenizer, Sam3TrackerVideoConfig, Sam3TrackerVideoModel, Sam3VideoConfig, Sam3VideoModel

from .checkpoint import RANDOM_MARKER
from .words import clip_tokenizer

PREPROCESSOR = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "rescale_factor": 1 / 255,
    "resample": 2,
}


def small_config(size: int = 112, window: int = 4, **changes) -> Sam3TrackerVideoConfig:
    """A configuration of a few million parameters with every feature of the full one; `size` in pixels."""
    config = Sam3TrackerVideoConfig(
        vision_config={
            "fpn_hidden_size": 128,
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 96,
                "intermediate_size": 200,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "window_size": window,
                "global_attn_indexes": [1, 3],
                "pretrain_image_size": 56,
                "image_size": size,
            },
        },
        prompt_encoder_config={"hidden_size": 128, "mask_input_channels": 16},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 256, "iou_head_hidden_dim": 64},
        memory_attention_hidden_size=128,
        memory_attention_num_layers=3,
        memory_attention_feed_forward_hidden_size=256,
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=256,
        **changes,
    )
    config.image_size = size
    return config


def small_video_config(size: int = 112, window: int = 4, vocabulary: int = 1000) -> Sam3VideoConfig:
    """A configuration of detector and tracker, a few million parameters, with every feature of the full one."""
    hidden = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
    tracker = small_config(size, window)
    detector = {
        "vision_config": tracker.vision_config.to_dict(),
        "text_config": {
            **hidden,
            "model_type": "clip_text_model",
            "vocab_size": vocabulary,
            "num_hidden_layers": 3,
            "max_position_embeddings": 32,
            "projection_dim": 64,
            "hidden_act": "gelu",
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
        },
        "geometry_encoder_config": {**hidden, "num_layers": 2},
        "detr_encoder_config": {**hidden, "num_layers": 2},
        "detr_decoder_config": {**hidden, "num_layers": 3, "num_queries": 40},
        "mask_decoder_config": {"hidden_size": 128, "num_attention_heads": 4},
    }
    low_res = 4 * (size // 14)
    config = Sam3VideoConfig(detector_config=detector, tracker_config=tracker.to_dict(), low_res_mask_size=low_res)
    config.image_size = size
    return config


@torch.no_grad()
def randomise(model: torch.nn.Module, seed: int, score_bias: float = 8.0) -> None:
    """Draws every parameter and buffer of a `Sam3TrackerVideoModel` or `Sam3VideoModel` anew.

    Matrices keep the spread of their inputs (1 / sqrt(fan in)); gains sit around 1, biases and the embeddings that the
    classes leave at zero around 0. `score_bias` is added to the object score, so that objects are usually there.
    """
    generator = torch.Generator().manual_seed(seed)
    is_video = isinstance(model, Sam3VideoModel)
    if is_video:
        _randomise(model, generator)
        _separate_detections(model.detector_model, generator)
        _calm_tracker(model.tracker_model, generator, score_bias)
    else:
        _randomise(model, generator)
        _calm_tracker(model, generator, score_bias)


def _draw(tensor: torch.Tensor, generator: torch.Generator, spread: float, centre: float = 0.0) -> None:
    tensor.copy_(centre + spread * torch.randn(tensor.shape, generator=generator))


def _randomise(model: torch.nn.Module, generator: torch.Generator) -> None:

    def draw(tensor: torch.Tensor, spread: float, centre: float = 0.0) -> None:
        _draw(tensor, generator, spread, centre)

    norm_kinds = (torch.nn.LayerNorm, torch.nn.GroupNorm)
    norms = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, norm_kinds)}
    for name, parameter in sorted(model.named_parameters()):
        if name in norms:
            draw(parameter, 0.2, 1.0)
        elif name.endswith("bias"):
            draw(parameter, 0.1)
        elif name.endswith(".scale"):
            draw(parameter, 0.1, 0.5)
        elif (
            parameter.dim() >= 2
            and not name.endswith(("embed.weight", "embedding.weight", "points.weight"))
            and any(
                part in name
                for part in ("proj", "conv", "linear", "fc", ".layer1", ".layer2", ".layer3", "mask_embedder")
            )
        ):
            transposed = "upscale" in name or "scale_layers" in name
            fan_in = parameter.shape[0] if transposed else parameter[0].numel()
            draw(parameter, 1.2 / fan_in**0.5)
        else:
            draw(parameter, 0.3)


def _calm_tracker(model: Sam3TrackerVideoModel, generator: torch.Generator, score_bias: float) -> None:
    def draw(tensor: torch.Tensor, spread: float) -> None:
        _draw(tensor, generator, spread)

    draw(model.shared_image_embedding.positional_embedding, 1.0)
    draw(model.prompt_encoder.shared_embedding.positional_embedding, 1.0)
    # A loop of random layers amplifies rounding without bound: two attention implementations of the reference itself
    # drift apart by 100% within 20 frames. What feeds back (memories, pointers) is made weaker than what the image
    # brings, and choices between masks are made clear-cut, so that a difference means a mistake.
    for layer in model.memory_attention.layers:
        layer.cross_attn_image.q_proj.weight.mul_(0.7)
        layer.cross_attn_image.o_proj.weight.mul_(0.7)
    model.memory_encoder.mask_downsampler.final_conv.weight.mul_(0.5)
    model.object_pointer_proj.proj_out.weight.mul_(0.5)
    draw(model.mask_decoder.iou_prediction_head.proj_out.bias, 5.0)
    if model.config.enable_temporal_pos_encoding_for_object_pointers:
        model.temporal_positional_encoding_projection_layer.weight.mul_(3.0)
    model.mask_decoder.pred_obj_score_head.proj_out.bias.add_(score_bias)


def _separate_detections(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Spreads boxes over the image and scores over 0 to 1, so that some candidates are found and others are not."""
    _draw(model.detr_decoder.reference_points.weight, generator, 1.2)
    _draw(model.detr_decoder.query_embed.weight, generator, 1.0)
    model.detr_decoder.presence_head.layer3.bias.add_(4.0)
    model.dot_product_scoring.query_proj.weight.mul_(3.0)
    model.mask_decoder.mask_embedder.layers[-1].weight.mul_(3.0)
    # Random projections agree or disagree with all queries alike: what they have in common is taken off.
    vocabulary = model.config.text_config.vocab_size
    side = model.config.image_size
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    image = torch.stack((torch.sin(9 * x), torch.cos(7 * y), x * y))[None]
    scoring, seen = model.dot_product_scoring, []
    hook = scoring.text_proj.register_forward_hook(lambda *call: seen.append(call[-1][0]))
    output = model.eval()(pixel_values=image, input_ids=torch.tensor([[vocabulary - 2, 40, vocabulary - 1]]))
    hook.remove()
    text = seen[0]
    excess = output.pred_logits.mean() / scoring.scale
    scoring.query_proj.bias.sub_(excess * text / text.square().sum())


def save_checkpoint(
    folder: Path,
    config: Sam3TrackerVideoConfig | Sam3VideoConfig,
    seed: int,
    tokenizer: CLIPTokenizer | None = None,
    **options,
) -> Path:
    """Writes config.json, model.safetensors, the preprocessor's configuration and a tokenizer; returns the folder."""
    torch.manual_seed(seed)
    is_video = isinstance(config, Sam3VideoConfig)
    model = (Sam3VideoModel if is_video else Sam3TrackerVideoModel)(config).eval()
    if is_video:
        (tokenizer or clip_tokenizer()).save_pretrained(folder)
    randomise(model, seed, **options)
    model.save_pretrained(folder)
    size = {"height": config.image_size, "width": config.image_size}
    (folder / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSOR, "size": size}))
    (folder / RANDOM_MARKER).write_text(f"seed {seed}\n")
    return folder


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="2.6M or 466M parameters")
    parser.add_argument("--detector", action="store_true", help="a detector too: 840M parameters in full size")
    parser.add_argument("--res", type=int, help="side in pixels that config.json states")
    arguments = parser.parse_args()
    if arguments.detector:
        full = arguments.size == "full"
        config = Sam3VideoConfig() if full else small_video_config(arguments.res or 112)
        if full and arguments.res:
            config.image_size = arguments.res
    elif arguments.size == "full":
        config = Sam3TrackerVideoConfig()
        config.image_size = arguments.res or config.image_size
    else:
        config = small_config(arguments.res or 112)
    save_checkpoint(arguments.out, config, arguments.seed)
    print(arguments.out)


if __name__ == "__main__":
    main()
