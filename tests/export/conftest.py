"""What the tests of snow-export share: small checkpoints and one exported bundle."""

import json
from pathlib import Path

import pytest
from exporting import RESOLUTION, WINDOW, snow_export, write_weights


@pytest.fixture
def folder_with(tmp_path):
    """Makes a checkpoint folder with a config.json of the given content and a dummy weight file."""

    def make(config: object, weights: bool = True) -> Path:
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        if weights:
            write_weights(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A small random checkpoint of the tracker alone."""
    from snow_export.random_checkpoint import save_checkpoint, small_config

    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", small_config(RESOLUTION, WINDOW), seed=3)


@pytest.fixture(scope="session")
def bundle(checkpoint, tmp_path_factory) -> Path:
    """Its float32 bundle, with golden vectors."""
    out = tmp_path_factory.mktemp("models")
    run = snow_export(checkpoint, "--res", RESOLUTION, "--out", out, "--golden-frames", 3)
    assert run.code == 0, run.stderr
    return out / f"tiny-{RESOLUTION}-fp32"
