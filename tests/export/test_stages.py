"""Stages against the reference's own modules: cases of a rewrite that no small bundle shows."""

import pytest
import torch
from snow_export.random_checkpoint import randomise, small_config
from snow_export.stages.plane_norm import PlaneNorm
from snow_export.stages.vision_encoder import VisionEncoder, window_order
from transformers import Sam3TrackerVideoModel
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import Sam3TrackerVideoLayerNorm


@pytest.mark.parametrize(("grid", "window"), [(8, 4), (9, 4), (10, 4), (3, 4), (7, 3)])
def test_windows_hold_every_token_once(grid, window):
    order, groups = window_order(grid, window)
    assert sorted(order.tolist()) == list(range(grid * grid))
    assert groups[0].start == 0 and groups[-1].end == grid * grid
    for group in groups:
        assert sorted(group.places.tolist()) == list(range(window * window))
        for number in range(group.count):
            tokens = order[group.start + number * group.tokens :][: group.tokens]
            rows, columns = tokens // grid, tokens % grid
            inside = (rows - rows[0]) * window + columns - columns[0]
            assert torch.equal(inside, group.places[: group.tokens])
            assert rows[0] % window == 0 and columns[0] % window == 0


@pytest.mark.parametrize(("grid", "window"), [(8, 4), (9, 4), (10, 4), (4, 4), (3, 4), (11, 3)])
def test_the_vision_encoder_is_the_reference_whatever_the_windows_leave_over(grid, window):
    """Two images at once; whole windows, windows of one row or column, an image of one window and a smaller one."""
    model = Sam3TrackerVideoModel(small_config(14 * grid, window)).eval()
    randomise(model, 5)
    random = torch.Generator().manual_seed(grid)
    images = torch.randint(0, 256, (2, 14 * grid, 14 * grid, 3), generator=random, dtype=torch.uint8)
    with torch.no_grad():
        wanted = model.get_image_features((images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5, return_dict=True)
        stage = VisionEncoder(model, [0.5] * 3, [0.5] * 3, 1 / 255).eval()
        stage.fold()
        got = stage(images)
        trained = stage.train()(images)
    expected = [level.transpose(0, 1) for level in wanted.fpn_hidden_states]
    pairs = zip((got[2].flatten(2).transpose(1, 2), got[3].flatten(2).transpose(1, 2), got[0]), expected, strict=True)
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() / theirs.norm() < 1e-5
    # What is trained is what is exported.
    for ours, theirs in zip(trained, got, strict=True):
        assert (ours - theirs).norm() / theirs.norm() < 1e-5


@pytest.mark.parametrize("channels", [4, 64])
def test_a_norm_by_planes_is_the_reference_norm(channels):
    torch.manual_seed(channels)
    norm = Sam3TrackerVideoLayerNorm(channels, data_format="channels_first")
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    image_nchw = 30 + 10 * torch.randn(2, channels, 6, 5)
    # A pixel whose channels are all alike: only the epsilon keeps it from infinity.
    image_nchw[0, :, 0, 0] = 7.0
    with torch.no_grad():
        expected, got = norm(image_nchw), PlaneNorm(norm)(image_nchw)
    assert (got - expected).abs().max() < 2e-5 * expected.abs().max()
