"""The architecture of snow-tiny's detector, on the backbone of its tracker, and how it starts."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer, Sam3Config, Sam3Model, Sam3TrackerVideoModel, Sam3VideoConfig, Sam3VideoModel

from ..words import clip_tokenizer
from .captions import words
from .model import share_parameters, spread_weights, tiny_config

# The width of the tracker's pyramid: the reference makes the tracker's neck by the detector's configuration.
HIDDEN = 128
# The reference pads every text to 32 tokens.
TEXT_WIDTH, TEXT_TOKENS, QUERIES = 64, 32, 40


def tokenizer() -> CLIPTokenizer:
    """A tokenizer that knows the words of captions, most of them whole, and spells all others."""
    return clip_tokenizer(words())


def detector_config(side: int, vocabulary: int) -> dict:
    """The reference's detector scaled down to two and a half million parameters, without the backbone's."""
    hidden = {"hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_attention_heads": 4, "dropout": 0.0}
    vision = tiny_config(side).vision_config.to_dict()
    return {
        "vision_config": {**vision, "fpn_hidden_size": HIDDEN},
        "text_config": {
            "model_type": "clip_text_model",
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 2 * TEXT_WIDTH,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "projection_dim": 8,
            "vocab_size": vocabulary,
            "max_position_embeddings": TEXT_TOKENS,
            "hidden_act": "gelu",
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
        },
        "geometry_encoder_config": {**hidden, "num_layers": 1, "roi_size": 3},
        "detr_encoder_config": {**hidden, "num_layers": 2},
        "detr_decoder_config": {**hidden, "num_layers": 2, "num_queries": QUERIES},
        "mask_decoder_config": {
            "hidden_size": HIDDEN,
            "num_attention_heads": 4,
            "dropout": 0.0,
            "num_upsampling_stages": 2,
        },
    }


def new_detector(seed: int, tracker: Sam3TrackerVideoModel, side: int, vocabulary: int) -> Sam3Model:
    """A detector ready to learn, on the tracker's backbone, which stays as it is, and with a copy of its neck.

    The spread of 0.02 that the classes draw weights with lets signals fade in a narrow model.
    """
    torch.manual_seed(seed)
    model = Sam3Model(Sam3Config(**detector_config(side, vocabulary)))
    spread_weights(model)
    decoder = model.detr_decoder
    with torch.no_grad():
        for table in (decoder.query_embed, decoder.presence_token, model.geometry_encoder.cls_embed):
            table.weight.normal_(0, 1)
        model.geometry_encoder.label_embed.weight.normal_(0, 0.5)
        decoder.reference_points.weight.uniform_(-1.5, 1.5)
        # Boxes start small, where they are, and move little.
        decoder.reference_points.weight[:, 2:] = -1.0
        decoder.box_head.layer3.weight.zero_()
        decoder.box_head.layer3.bias.zero_()
        model.text_encoder.text_model.embeddings.token_embedding.weight.normal_(0, 0.5)
        model.text_encoder.text_model.embeddings.position_embedding.weight.normal_(0, 0.1)
    model.vision_encoder.load_state_dict(tracker.vision_encoder.state_dict())
    model.vision_encoder.backbone.requires_grad_(False)
    # Dropped by the reference, so nothing would ever move it.
    model.vision_encoder.neck.fpn_layers[3].requires_grad_(False)
    return model


@torch.no_grad()
def take_over(model: Sam3Model, checkpoint: Path) -> None:
    """Gives a new detector the weights of a published one but its backbone; tokens take theirs by their spelling, and
    those that its tokenizer does not have keep what they were drawn with.

    Raises `ValueError` if the checkpoint has no detector, or another kind of one.
    """
    known, prefix = load_file(checkpoint / "model.safetensors"), "detector_model."
    weights = {name.removeprefix(prefix): value.float() for name, value in known.items() if name.startswith(prefix)}
    weights = {name: value for name, value in weights.items() if not name.startswith("vision_encoder.backbone.")}
    table = "text_encoder.text_model.embeddings.token_embedding.weight"
    expected = "expected a checkpoint that snow_export.tiny.publish wrote with --detector"
    if table not in weights:
        raise ValueError(f"{checkpoint}: has no detector ({prefix}{table} is missing); {expected}")
    old, rows = CLIPTokenizer.from_pretrained(checkpoint).get_vocab(), model.state_dict()[table].clone()
    for token, row in tokenizer().get_vocab().items():
        if token in old:
            rows[row] = weights[table][old[token]]
    weights[table] = rows
    loaded = model.load_state_dict(weights, strict=False)
    missing = [name for name in loaded.missing_keys if not name.startswith("vision_encoder.backbone.")]
    if loaded.unexpected_keys or missing:
        wrong = ", ".join([*loaded.unexpected_keys, *missing][:4])
        raise ValueError(f"{checkpoint}: has a detector of another kind: {wrong}; {expected}")


def detector_at(model: Sam3Model, side: int) -> Sam3Model:
    """A detector of another side that shares all parameters with `model`."""
    other = Sam3Model(Sam3Config(**detector_config(side, model.vocab_size)))
    share_parameters(model, other)
    return other


def video_config(side: int, vocabulary: int) -> Sam3VideoConfig:
    """Detector and tracker together; masks of the loop are as large as the tracker's."""
    tracker = tiny_config(side).to_dict()
    low_res = 4 * (side // 14)
    config = Sam3VideoConfig(
        detector_config=detector_config(side, vocabulary), tracker_config=tracker, low_res_mask_size=low_res
    )
    config.image_size = side
    return config


def join(tracker: Sam3TrackerVideoModel, detector: Sam3Model, folder: Path) -> None:
    """Writes a `sam3_video` checkpoint in half precision: the tracker, the detector, and the backbone of both once."""
    side = tracker.config.image_size
    model = Sam3VideoModel(video_config(side, detector.vocab_size))
    model.detector_model.load_state_dict(detector.state_dict())
    rest = {name: value for name, value in tracker.state_dict().items() if not name.startswith("vision_encoder.")}
    missing = model.tracker_model.load_state_dict(rest, strict=False)
    unknown = [name for name in missing.missing_keys if not name.startswith("vision_encoder.")]
    if missing.unexpected_keys or unknown:
        raise ValueError(f"the tracker does not fit: {missing.unexpected_keys + unknown}")
    model.tracker_neck.load_state_dict(tracker.vision_encoder.neck.state_dict())
    model.half().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
