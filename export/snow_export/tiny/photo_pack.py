"""What photo clips are made of, read from the folder that `make_photo_pack` writes."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

DEFAULT = Path("out/photographs")
# Clear pixels around a thing, in shares of its longer side, for its parts to move in.
MARGIN = 0.2


@dataclass
class Thing:
    """Something cut out: u8 `[h, w, 4]`; `behind` u8 `[h, w, 3]` is its photograph without it, and `box` where it was,
    in shares of the photograph, both only where it was cut out by hand.
    """

    image: np.ndarray
    behind: np.ndarray | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass
class Pack:
    """The photographs of one side of the split, u8 `[h, w, 3]`, and what was cut out of them."""

    photographs: list[np.ndarray] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    pieces: list[Thing] = field(default_factory=list)


def load_pack(folder: Path, held_out: bool) -> Pack:
    """What is in a folder of one side of the split."""

    def read(name: str) -> np.ndarray:
        return np.asarray(Image.open(folder / name))

    pack = Pack()
    for record in json.loads((folder / "index.json").read_text()):
        if record["held_out"] != held_out:
            continue
        pack.photographs.append(read(f"{record['name']}.jpg"))
        pack.things += [Thing(read(t["file"]), read(t["behind"]), tuple(t["box"])) for t in record["things"]]
        pack.pieces += [Thing(read(name)) for name in record["pieces"]]
    return pack
