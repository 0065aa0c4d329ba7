"""Loading a reference model whole, or saying what a checkpoint lacks."""

import torch

from ..errors import ExportError


def load_whole(kind: type, path: str, config, what: str):
    """A model of the class `kind` in float32, evaluation mode, every parameter from the checkpoint.

    Raises `ExportError` with the names of tensors that are missing or of another shape; `what` says whose they are.
    """
    model, info = kind.from_pretrained(
        path,
        config=config,
        dtype=torch.float32,
        attn_implementation="sdpa",
        output_loading_info=True,
        # Reported below, with their names, instead of a bare refusal.
        ignore_mismatched_sizes=True,
    )
    for key, words in (
        ("missing_keys", "missing in the checkpoint"),
        ("mismatched_keys", "of another shape in the checkpoint"),
    ):
        if info[key]:
            names = sorted(name if isinstance(name, str) else name[0] for name in info[key])
            shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
            raise ExportError(
                f"{path}: tensors of {what} that are {words}: {len(names)} ({shown}). It is incomplete or of another "
                "architecture than its config.json says."
            )
    return model.eval()
