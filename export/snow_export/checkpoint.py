"""Finding a checkpoint: a Hugging Face id or a local folder in transformers format."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .errors import ExportError

# A folder that holds this file was made by `snow_export.random_checkpoint`.
RANDOM_MARKER = "RANDOM_WEIGHTS"
_PATTERNS = ["*.json", "*.safetensors", "LICENSE*", "README.md"]


@dataclass
class Checkpoint:
    """A checkpoint on this machine. `source` is what the user gave, `sha256` covers config and weights."""

    source: str
    folder: Path
    raw_config: dict

    @property
    def model_type(self) -> str:
        """`model_type` of config.json."""
        return str(self.raw_config.get("model_type", "unknown"))

    @property
    def random_weights(self) -> bool:
        """Whether the weights mean nothing."""
        return (self.folder / RANDOM_MARKER).exists()

    def config(self):
        """The library's configuration object for config.json; an `ExportError` for values that it does not take."""
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(self.folder)
        except Exception as error:  # each configuration class checks its values in its own way
            reason = " ".join(str(error).split())
            raise ExportError(
                f"{self.folder / 'config.json'}: is not a configuration of {self.model_type!r}: {reason}"
            ) from error

    def sha256(self) -> str:
        """Hash of the hashes of config.json and of every weight file, in name order."""
        total = hashlib.sha256()
        for path in [self.folder / "config.json", *sorted(self.folder.glob("*.safetensors"))]:
            total.update(f"{path.name} {file_sha256(path)}\n".encode())
        return total.hexdigest()

    def licence(self) -> tuple[str, str]:
        """Name and text of the checkpoint's licence."""
        for path in sorted(self.folder.glob("LICENSE*")):
            text = path.read_text(errors="replace")
            first = next((line.strip() for line in text.splitlines() if line.strip()), path.name)
            return first[:80], text
        if self.random_weights:
            return "CC0-1.0", "Random weights: nothing here is anybody's work. CC0-1.0.\n"
        note = f"The checkpoint {self.source} came without a licence file; ask its publisher for the terms.\n"
        return "not stated by the checkpoint", note

    def preprocess(self) -> dict:
        """What the reference's processor does to a frame, from the checkpoint's own files or the library's defaults."""
        values = self._processor_config()
        resample = values.get("resample", 2)
        if resample != 2:
            raise ExportError(f"{self.folder}: the processor resizes with filter {resample}, expected 2 (bilinear)")
        for switch in ("do_resize", "do_rescale", "do_normalize"):
            if values.get(switch, True) is not True:
                raise ExportError(f"{self.folder}: the processor has {switch} off, which snow-ort cannot do")
        return {
            "filter": "bilinear",
            "antialias": True,
            "rounding": "uint8",
            "layout": "nhwc",
            "channels": "rgb",
            "scale": float(values.get("rescale_factor", 1 / 255)),
            "mean": [float(value) for value in values.get("image_mean", [0.5] * 3)],
            "std": [float(value) for value in values.get("image_std", [0.5] * 3)],
            "in_graph": True,
        }

    def _processor_config(self) -> dict:
        for name, key in (
            ("video_preprocessor_config.json", None),
            ("processor_config.json", "video_processor"),
            ("processor_config.json", "image_processor"),
            ("preprocessor_config.json", None),
        ):
            path = self.folder / name
            if path.exists():
                values = json.loads(path.read_text())
                values = values if key is None else values.get(key)
                if values and "image_mean" in values:
                    return values
        return {}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_checkpoint(source: str) -> Checkpoint:
    """Opens a local folder, or downloads an id with huggingface_hub; `ExportError` says what is missing."""
    folder = Path(source)
    if not folder.is_dir():
        if folder.exists():
            raise ExportError(f"{source}: is a file, expected a folder with config.json and *.safetensors, or an id")
        if source.startswith((".", "/", "~")) or source.count("/") != 1:
            raise ExportError(f"{source}: no such folder, and not a Hugging Face id (owner/name)")
        folder = _download(source)
    config = folder / "config.json"
    if not config.exists():
        raise ExportError(f"{source}: has no config.json; give a checkpoint in transformers format")
    try:
        raw = json.loads(config.read_text())
    except json.JSONDecodeError as error:
        raise ExportError(f"{config}: is not JSON ({error}); download the checkpoint again") from error
    if not isinstance(raw, dict):
        raise ExportError(f"{config}: expected a JSON object")
    checkpoint = Checkpoint(source, folder, raw)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ExportError(f"{source}: has no *.safetensors; give a checkpoint with weights in safetensors format")
    for path in weights:
        _check_weights(path)
    return checkpoint


def _check_weights(path: Path) -> None:
    """Reads a weight file's header, which says how long the file has to be."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise ExportError(
            f"{path}: cannot be read as safetensors ({error}); it is truncated or damaged. Download it again"
        ) from error


def _download(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(source, allow_patterns=_PATTERNS))
    except GatedRepoError as error:
        raise ExportError(
            f"{source}: is gated. Ask for access on its page at the hub, then log in with `hf auth login` "
            "(or set HF_TOKEN) and export again."
        ) from error
    except RepositoryNotFoundError as error:
        raise ExportError(
            f"{source}: no such model at the hub, or it is private or gated and you are not logged in "
            "(`hf auth login`); check the id."
        ) from error
    except (HFValidationError, OfflineModeIsEnabled) as error:
        raise ExportError(f"{source}: cannot be downloaded: {str(error).splitlines()[0]}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()
        raise ExportError(
            f"{source}: cannot be downloaded ({reason[0] if reason else type(error).__name__}). Check the network, or "
            "download the checkpoint elsewhere and give its folder."
        ) from error
    except Exception as error:  # the hub's HTTP client raises classes of its own when there is no network
        if type(error).__module__.split(".")[0] not in {"httpx", "httpx2", "httpcore", "requests", "hf_xet"}:
            raise
        raise ExportError(
            f"{source}: cannot be downloaded ({error}). Check the network, or download the checkpoint elsewhere and "
            "give its folder."
        ) from error
