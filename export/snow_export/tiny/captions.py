"""What can be said of an object in a clip: its colour, its pattern and its shape, in words.

A caption is up to one colour, up to one pattern and a noun, each in one of several words, as somebody would type them:
"red star", "a striped box", "dotted things". It means every object that is all of it.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

# What an object can be -> the words for it, the usual one first.
SHAPES = {
    "blob": ("blob", "stain"),
    "ellipse": ("oval", "ellipse"),
    "box": ("box", "rectangle"),
    "star": ("star",),
    "ring": ("ring", "donut"),
    "creature": ("animal", "creature"),
}
COLOURS = {
    "red": ("red",),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "brown": ("brown",),
    "white": ("white",),
    "black": ("black",),
    "grey": ("grey", "gray"),
}
PATTERNS = {
    "plain": ("plain",),
    "striped": ("striped",),
    "checkered": ("checkered",),
    "dotted": ("dotted", "spotted"),
    "marbled": ("marbled",),
}
ANYTHING = ("object", "thing")
# Of nothing that these clips show; there is no end of others, so letters in any order serve as well.
FOREIGN = ("dog", "car", "person", "tree", "house", "cup", "bicycle", "cloud", "face", "bird", "phone", "shoe")
# The reference takes this word where only boxes say what is meant.
VISUAL = "visual"
# Of the captions that are true of nothing, those drawn without a look at the picture; the rest are a word off.
ELSEWHERE_SHARE = 0.4
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Looks:
    """An object: names out of `SHAPES`, `COLOURS` and `PATTERNS`. A photograph has no colour and no pattern."""

    shape: str
    colour: str | None = None
    pattern: str | None = None


@dataclass(frozen=True)
class Caption:
    """`text` and what it asks for; what is None may be anything. A `foreign` one is true of no object."""

    text: str
    shape: str | None = None
    colour: str | None = None
    pattern: str | None = None
    foreign: bool = False

    def matches(self, looks: Looks) -> bool:
        """Whether it is true of an object."""
        pairs = ((self.shape, looks.shape), (self.colour, looks.colour), (self.pattern, looks.pattern))
        return not self.foreign and all(asked in (None, given) for asked, given in pairs)


@cache
def words() -> list[str]:
    """Every word that captions are made of, for a tokenizer."""
    named = [word for table in (SHAPES, COLOURS, PATTERNS) for group in table.values() for word in group]
    nouns = [word for group in SHAPES.values() for word in group]
    return ["a", "the", *named, *ANYTHING, *(_plural(noun) for noun in (*nouns, *ANYTHING)), VISUAL, *FOREIGN]


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("x") else "s")


def _words_for(random: np.random.Generator, table: dict[str, tuple[str, ...]], name: str | None) -> list[str]:
    return [] if name is None else [str(random.choice(table[name]))]


def phrase(
    random: np.random.Generator, shape: str | None, colour: str | None, pattern: str | None, noun: str | None = None
) -> str:
    """Words for what is asked for; `noun` stands for a shape that has no name here."""
    nouns = [noun] if noun else _words_for(random, SHAPES, shape) or [str(random.choice(ANYTHING))]
    said = _words_for(random, COLOURS, colour) + _words_for(random, PATTERNS, pattern)
    form = random.random()
    if form < 0.25:
        said = [str(random.choice(["a", "the"])), *said]
    elif form < 0.45:
        nouns = [_plural(nouns[0])]
    return " ".join(said + nouns)


def _caption(random: np.random.Generator, shape: str | None, colour: str | None, pattern: str | None) -> Caption:
    return Caption(phrase(random, shape, colour, pattern), shape, colour, pattern)


def present(random: np.random.Generator, looks: Looks) -> Caption:
    """A caption that is true of an object."""
    asks = random.random(3) < (0.7, 0.55, 0.25)
    shape, colour, pattern = (
        value if ask else None for ask, value in zip(asks, (looks.shape, looks.colour, looks.pattern), strict=True)
    )
    return _caption(random, shape, colour, pattern)


def absent(random: np.random.Generator, shown: list[Looks], foreign: float = 0.25) -> Caption | None:
    """A caption that is true of none of the objects shown: one word off the truth, or, for a share `foreign`, a word
    for nothing that clips show. None if luck found only true ones.
    """
    if random.random() < foreign:
        noun = str(random.choice(FOREIGN))
        if random.random() < 0.5:
            noun = "".join(random.choice(list(_LETTERS), int(random.integers(2, 8))))
            if noun in words():
                return None
        colour = str(random.choice(list(COLOURS))) if random.random() < 0.4 else None
        return Caption(phrase(random, None, colour, None, noun), foreign=True)
    coloured = all(looks.colour is not None for looks in shown)
    for _ in range(8):
        model = shown[int(random.integers(len(shown)))]
        caption = present(random, model)
        # Who knows what colour a photograph is: it is only ever asked for its shape.
        fields = ("shape", "colour", "pattern") if coloured else ("shape",)
        changed = str(random.choice(fields))
        table = {"shape": SHAPES, "colour": COLOURS, "pattern": PATTERNS}[changed]
        asked = {"shape": caption.shape, "colour": caption.colour, "pattern": caption.pattern}
        asked[changed] = str(random.choice(list(table)))
        if not coloured:
            asked["colour"] = asked["pattern"] = None
        caption = replace(caption, text=phrase(random, **asked), **asked)
        if not any(caption.matches(looks) for looks in shown):
            return caption
    return None


def elsewhere(random: np.random.Generator, shown: list[Looks]) -> Caption | None:
    """Any caption of the set, drawn without a look at the picture, that happens to be true of none of the objects
    shown; None if every try was true of one.
    """
    coloured = all(looks.colour is not None for looks in shown)
    for _ in range(20):
        looks = Looks(*(str(random.choice(list(table))) for table in (SHAPES, COLOURS, PATTERNS)))
        caption = present(random, looks if coloured else Looks(looks.shape))
        if not any(caption.matches(looks) for looks in shown):
            return caption
    return None


def draw(random: np.random.Generator, shown: list[Looks], visible: list[int], absent_share: float) -> Caption:
    """A caption for a picture of the objects `shown`, of which those numbered `visible` can be made out."""
    if not visible:
        return absent(random, shown) or Caption(str(random.choice(FOREIGN)), foreign=True)
    if random.random() < absent_share:
        caption = (elsewhere if random.random() < ELSEWHERE_SHARE else absent)(random, shown)
        if caption is not None:
            return caption
    if random.random() < 0.12:
        return _caption(random, None, None, None)
    model = shown[visible[int(random.integers(len(visible)))]]
    if any(looks.colour is None for looks in shown):
        model = Looks(model.shape)
    return present(random, model)
