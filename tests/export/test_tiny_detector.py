"""The small model's captions and the training of its detector."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from preloaded import run_module
from safetensors.torch import load_file, save_file
from snow_export.tiny.batches import boxes_of
from snow_export.tiny.calibrate_detector import needed
from snow_export.tiny.captioned import CaptionedBatches, Pairs, captioned
from snow_export.tiny.captions import COLOURS, PATTERNS, SHAPES, Caption, Looks, absent, draw, elsewhere, words
from snow_export.tiny.clips import make_clip
from snow_export.tiny.coats import named_coat
from snow_export.tiny.demo import CAPTIONS, TEXT_SEED, captioned_settings, write_text_demo
from snow_export.tiny.detector_loss import Found, loss_of, predict
from snow_export.tiny.detector_model import TEXT_TOKENS, detector_at, new_detector, take_over, tokenizer
from snow_export.tiny.evaluate_detector import Tally
from snow_export.tiny.model import new_model, trained_model
from snow_export.tiny.publish import publish
from snow_export.words import clip_tokenizer
from transformers import AutoConfig, CLIPTokenizer, Sam3Model, Sam3TrackerVideoModel, Sam3VideoModel

STAR = Looks("star", "red", "striped")


@pytest.mark.parametrize(
    ("caption", "true"),
    [
        (Caption("object"), True),
        (Caption("star", "star"), True),
        (Caption("red striped star", "star", "red", "striped"), True),
        (Caption("red object", colour="red"), True),
        (Caption("blue star", "star", "blue"), False),
        (Caption("red ring", "ring", "red"), False),
        (Caption("plain star", "star", pattern="plain"), False),
        (Caption("red dog", foreign=True), False),
    ],
)
def test_a_caption_means_what_is_all_of_it(caption, true):
    assert caption.matches(STAR) is true


def test_a_photograph_has_no_colour():
    assert Caption("star", "star").matches(Looks("star"))
    assert not Caption("red star", "star", "red").matches(Looks("star"))


def test_captions_say_what_they_ask_for():
    """Each asked-for name is in the text by one of its words, and no word of another name is."""
    random = np.random.default_rng(1)
    shown = [STAR, Looks("ring", "blue", "plain")]
    for _ in range(300):
        caption = draw(random, shown, [0, 1], 0.4)
        said = set(caption.text.split())
        if caption.foreign:
            assert not any(caption.matches(looks) for looks in shown)
            continue
        for table, name in ((SHAPES, caption.shape), (COLOURS, caption.colour), (PATTERNS, caption.pattern)):
            for other, forms in table.items():
                plural = {form + ("es" if form.endswith("x") else "s") for form in forms}
                assert bool(said & ({*forms} | plural)) is (other == name), caption


def test_absent_captions_are_true_of_nothing():
    random = np.random.default_rng(2)
    shown = [STAR, Looks("box", "grey", "dotted")]
    for find in (absent, elsewhere):
        found = [caption for caption in (find(random, shown) for _ in range(200)) if caption]
        assert len(found) > 150
        assert not any(caption.matches(looks) for caption in found for looks in shown)


def test_captions_fit():
    tokens, random = tokenizer(), np.random.default_rng(4)
    lengths = [len(tokens(draw(random, [STAR], [0], 0.4).text).input_ids) for _ in range(500)]
    assert np.mean(np.array(lengths) <= TEXT_TOKENS) > 0.98
    assert all(len(tokens(word).input_ids) == 3 for word in words())
    assert len(tokens("zebra").input_ids) > 3


def test_coats_have_the_colour_that_they_are_called():
    """The commonest colour of a coat is nearer to its own name's middle than to a far one's."""
    hues = {"red": 0, "green": 120, "blue": 225, "purple": 275}
    random = np.random.default_rng(3)
    right = total = 0
    for _ in range(400):
        coat, colour, pattern = named_coat(random, 48)
        assert coat.shape == (48, 48, 3)
        assert pattern in PATTERNS
        if colour in hues and pattern in ("plain", "dotted"):
            hsv = np.asarray(Image.fromarray(coat.astype(np.uint8)).convert("HSV")).reshape(-1, 3)
            turns = np.exp(2j * np.pi * hsv[hsv[:, 1] > 100, 0] / 255).mean()
            hue = float(np.degrees(np.angle(turns))) % 360
            away = {name: min(abs(hue - at), 360 - abs(hue - at)) for name, at in hues.items()}
            right += min(away, key=away.get) == colour
            total += 1
    assert total > 20
    assert right == total, (right, total)


def test_looks_belong_to_the_objects_of_a_clip():
    for seed in range(150, 158):
        settings = captioned(np.random.default_rng((seed, 6)), 96, 2)
        clip = make_clip(seed, settings)
        assert len(clip.looks) == clip.areas.shape[1] - 1
        assert all(looks.shape in SHAPES for looks in clip.looks)


def test_a_batch_wants_what_its_captions_mean():
    batches = CaptionedBatches(1, (112,), 4, 3, 6, 1)
    words_asked, boxes_shown = batches[0], batches[3]
    assert words_asked.boxes is None
    assert words_asked.token_ids.shape == words_asked.token_mask.shape == (12, words_asked.token_ids.shape[1])
    for pair, wanted in enumerate(words_asked.wanted):
        present = set(words_asked.ids[words_asked.image_of[pair]].unique().tolist())
        assert set(wanted) <= present
    assert any(words_asked.wanted)
    for pair, wanted in enumerate(boxes_shown.wanted):
        assert boxes_shown.labels[pair, 0] == 1
        mask = torch.isin(boxes_shown.ids[boxes_shown.image_of[pair]], torch.tensor(wanted, dtype=torch.uint8))
        x, y, width, height = (boxes_shown.boxes[pair, 0] * 112).tolist()
        inside = mask[int(y - height / 2) : int(y + height / 2) + 1, int(x - width / 2) : int(x + width / 2) + 1]
        assert inside.any(), "the box shown is of nothing that is wanted"


def test_boxes_lie_around_masks():
    masks = torch.zeros(2, 8, 10, dtype=torch.bool)
    masks[0, 2:5, 3:9] = True
    assert boxes_of(masks).tolist() == [[3, 2, 9, 5], [0, 0, 10, 8]]


def _pairs() -> Pairs:
    """One picture with two objects and two captions: one for the second object, one for nothing."""
    ids = torch.zeros(1, 112, 112, dtype=torch.uint8)
    ids[0, 7:42, 21:63], ids[0, 56:98, 49:91] = 1, 2
    tokens = torch.ones(2, 3, dtype=torch.int64)
    captions = [Caption("ring", "ring"), Caption("star", "star")]
    image = torch.zeros(1, 112, 112, 3, dtype=torch.uint8)
    return Pairs(image, ids, torch.zeros(2, dtype=torch.int64), tokens, tokens.bool(), captions, [[2], []])


class _Answers(Found):
    """Masks that are right for candidate 1 and nothing elsewhere."""

    def masks(self, model, chosen):
        right = torch.full((32, 32), -20.0)
        right[16:28, 14:26] = 20.0
        none = torch.full((32, 32), -20.0)
        masks = torch.where((chosen == 1)[..., None, None], right, none)
        return masks, torch.stack((right, none))


def test_the_loss_knows_right_from_wrong():
    pairs = _pairs()

    def answered(box, score, presence):
        boxes = torch.tensor([0.1, 0.1, 0.2, 0.2]).expand(2, 2, 3, 4).clone()
        boxes[:, :, 1] = torch.tensor(box) / 112
        logits = torch.full((2, 2, 3), -9.0)
        logits[:, 0, 1] = score
        return loss_of(None, _Answers(boxes, logits, torch.tensor(presence).expand(2, -1), torch.zeros(0), {}), pairs)

    right = answered([49.0, 56.0, 91.0, 98.0], 9.0, [9.0, -9.0])
    assert right[0] < 0.6
    assert right[1] > 0.85
    assert right[4] == 1
    wrong = {
        "box": answered([20.0, 30.0, 60.0, 70.0], 9.0, [9.0, -9.0]),
        "score": answered([49.0, 56.0, 91.0, 98.0], -9.0, [9.0, -9.0]),
        "presence": answered([49.0, 56.0, 91.0, 98.0], 9.0, [9.0, 9.0]),
    }
    for name, figures in wrong.items():
        assert figures[0] > right[0] + 0.5, name


def test_every_parameter_learns():
    """From words or from boxes; the backbone, which the tracker uses too, from neither."""
    model = new_detector(5, new_model(3), 224, len(tokenizer()))
    # It starts at zero, which nothing before it can feel.
    torch.nn.init.normal_(model.detr_decoder.box_head.layer3.weight, std=0.1)
    batches = CaptionedBatches(7, (224,), 2, 2, 4, 1)
    for step in (0, 3):
        pairs = batches[step]
        loss_of(model, predict(model, pairs), pairs)[0].backward()
    for name, value in model.named_parameters():
        still = "backbone" in name or "fpn_layers.3" in name or name == "text_encoder.text_projection.weight"
        moved = value.grad is not None and bool(value.grad.abs().sum() > 0)
        # Keys shift all scores of a query alike, so what is added to them has no effect.
        if not name.endswith("k_proj.bias"):
            assert moved is not still, name


def test_training_answers_as_the_reference_does():
    model = new_detector(6, new_model(3), 224, len(tokenizer())).eval()
    pairs = CaptionedBatches(8, (224,), 1, 2, 4, 1)[0]
    with torch.no_grad():
        found = predict(model, pairs)
        pixels = (pairs.images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        for pair in range(len(pairs.captions)):
            ids, mask = pairs.token_ids[pair : pair + 1], pairs.token_mask[pair : pair + 1]
            wanted = model(pixel_values=pixels, input_ids=ids, attention_mask=mask)
            chosen = torch.arange(found.logits.shape[2]).expand(len(pairs.captions), -1)
            masks, sketch = found.masks(model, chosen)
            for mine, theirs in (
                (found.boxes[-1, pair], wanted.pred_boxes[0]),
                (found.logits[-1, pair], wanted.pred_logits[0]),
                (found.presence[-1, pair], wanted.presence_logits[0, 0]),
                (masks[pair], wanted.pred_masks[0]),
                (sketch[pair], wanted.semantic_seg[0, 0]),
            ):
                assert torch.allclose(mine, theirs, atol=1e-4, rtol=1e-3)


def test_both_sides_share_their_parameters():
    model = new_detector(5, new_model(3), 224, len(tokenizer()))
    other = dict(detector_at(model, 336).named_parameters())
    assert all(other[name] is value for name, value in model.named_parameters())


def test_average_precision_of_known_answers():
    whole, half, none = np.ones((4, 4), bool), np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    half[:2] = True
    tally = Tally()
    # Right, wrong, and a second one on an object that is found already.
    tally.add(np.array([0.9, 0.8, 0.7]), np.stack((whole, none, whole)), [whole])
    assert tally.average_precision() == 1
    tally.add(np.array([0.85, 0.6]), np.stack((none, half)), [half])
    # In the order of scores: right, wrong, wrong, wrong, right.
    assert tally.average_precision() == pytest.approx((1 + 2 / 5) / 2)


def test_objects_that_are_not_asked_for_count_neither_way():
    first, second = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    first[:2], second[2:] = True, True
    tally = Tally()
    tally.add(np.array([0.9, 0.8]), np.stack((second, first)), [first, second], [True, False])
    assert tally.objects == 1
    assert tally.average_precision() == 1
    missed = Tally()
    missed.add(np.array([0.9]), first[None], [first, second], [True, False])
    assert missed.average_precision() == 1


def published(folder: Path) -> tuple[Sam3TrackerVideoModel, Sam3Model]:
    """A tracker and a detector on it, new ones, that `folder / "model"` holds together."""
    tracker = new_model(4)
    tracker.save_pretrained(folder / "tracker")
    detector = new_detector(9, tracker, 224, len(tokenizer()))
    trained = {name: value.detach() for name, value in detector.named_parameters() if value.requires_grad}
    save_file(trained, folder / "detector.safetensors")
    publish(folder / "tracker", folder / "detector.safetensors", folder / "model")
    return tracker, detector


def test_a_detector_is_published_beside_its_tracker(tmp_path):
    """One checkpoint that both reference classes read; weights in half precision, the tracker's those it had."""
    target = tmp_path / "model"
    target.mkdir()
    (target / "LICENSE").write_text("mine")
    tracker, detector = published(tmp_path)
    trained = {name: value for name, value in detector.named_parameters() if value.requires_grad}
    names = {"LICENSE", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in target.iterdir()} == names
    read = dict(trained_model(target).named_parameters())
    for name, value in tracker.named_parameters():
        assert torch.equal(read[name], value.detach().half().float()), name
    config = AutoConfig.from_pretrained(target)
    found = Sam3Model.from_pretrained(target, config=config.detector_config, dtype=torch.float32)
    read = dict(found.named_parameters())
    for name, value in trained.items():
        assert torch.equal(read[name], value.detach().half().float()), name
    _, info = Sam3VideoModel.from_pretrained(target, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert CLIPTokenizer.from_pretrained(target)("red stars").input_ids == tokenizer()("red stars").input_ids


def test_a_detector_stays_with_a_tracker_that_kept_the_backbone(tmp_path):
    """Another neck and other memories beside the same detector; not so with another backbone."""
    tracker, _ = published(tmp_path)
    other = new_model(5)
    with pytest.raises(ValueError, match="another backbone"):
        other.save_pretrained(tmp_path / "other")
        publish(tmp_path / "other", tmp_path / "model", tmp_path / "new")
    other.vision_encoder.backbone.load_state_dict(tracker.vision_encoder.backbone.state_dict())
    other.save_pretrained(tmp_path / "other")
    publish(tmp_path / "other", tmp_path / "model", tmp_path / "new")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "new"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not [name for name in changed if name.startswith("detector_model.")]


def test_a_training_begins_with_a_published_detector(tmp_path):
    """All but the backbone is taken over, tokens by their spelling: an older tokenizer numbers them otherwise."""
    _, old = published(tmp_path)
    other = clip_tokenizer(["ring", "red"])
    other.save_pretrained(tmp_path / "model")
    model = new_detector(10, new_model(5), 224, len(tokenizer()))
    before = {name: value.clone() for name, value in model.named_parameters()}
    take_over(model, tmp_path / "model")
    table = "text_encoder.text_model.embeddings.token_embedding.weight"
    for name, value in model.named_parameters():
        if name.startswith("vision_encoder.backbone."):
            assert torch.equal(value, before[name]), name
        elif name != table:
            assert torch.equal(value, old.get_parameter(name).half().float()), name
    rows, known, now = model.get_parameter(table), other.get_vocab(), tokenizer().get_vocab()
    given = old.get_parameter(table).half().float()
    assert known["red</w>"] != now["red</w>"]
    assert torch.equal(rows[now["red</w>"]], given[known["red</w>"]])
    assert "star</w>" not in known
    assert torch.equal(rows[now["star</w>"]], before[table][now["star</w>"]])


def test_a_training_does_not_begin_with_a_mere_tracker(tmp_path):
    new_model(4).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no detector"):
        take_over(new_detector(10, new_model(5), 224, len(tokenizer())), tmp_path)


@pytest.mark.parametrize(("candidate", "presence"), [(0.9, 2.0), (0.55, 4.0), (0.99, -3.0), (0.5001, 1.0)])
def test_the_shift_that_silences_a_caption_is_the_least(candidate, presence):
    def score(shift: float) -> float:
        return candidate / (1 + np.exp(shift - presence))

    shift = needed(candidate, presence)
    assert score(shift + 1e-6) < 0.5 < score(shift - 1e-6)
    assert (shift < 0) == (score(0) < 0.5)


def test_what_no_presence_makes_an_object_needs_no_shift():
    assert needed(0.4999, 50.0) == needed(0.5, 50.0) == -np.inf


def test_a_training_of_a_detector_goes_on(tmp_path):
    def train(steps: int) -> dict:
        options = ["--device", "cpu", "--steps", steps, "--pictures", 1, "--captions", 2, "--pool", 3]
        options += ["--workers", 0, "--fresh", 1, "--every", 1]
        run_module("snow_export.tiny.train_detector", "--out", tmp_path, *options)
        return load_file(tmp_path / "detector.safetensors")

    first = train(1)
    second = train(2)
    assert len((tmp_path / "curve.jsonl").read_text().splitlines()) == 2
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_the_demonstration_with_captions_has_what_they_mean(tmp_path):
    clip = make_clip(TEXT_SEED, captioned_settings(TEXT_SEED))
    clip.frames, clip.ids = clip.frames[:2], clip.ids[:2]
    write_text_demo(tmp_path, clip)
    meant = {o for c in CAPTIONS for o, looks in enumerate(clip.looks, 1) if c.matches(looks)}
    assert len(meant) >= 4
    for frame, path in enumerate(sorted((tmp_path / "gt").iterdir())):
        ids = np.asarray(Image.open(path))
        assert np.array_equal(ids, np.where(np.isin(clip.ids[frame], list(meant)), clip.ids[frame], 0))
    assert Path(tmp_path / "clip.mp4").stat().st_size > 0
