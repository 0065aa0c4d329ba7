"""Model families: which checkpoints each takes, its graphs and its memory policy. One file a family."""

from ..errors import ExportError
from . import sam3_tracker

FAMILIES = dict.fromkeys(sam3_tracker.MODEL_TYPES, sam3_tracker)


def family_of(model_type: str, where: str):
    """The family module for a `model_type` of a config.json; an `ExportError` that names what is supported."""
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ExportError(
            f"{where}: model_type is {model_type!r}, expected one of: {known}. "
            "Only SAM3 video checkpoints can be exported; check the id or the folder."
        )
    return FAMILIES[model_type]
