"""A small tokenizer of CLIP's kind, for checkpoints that are not OpenAI's."""

from collections.abc import Iterable
from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

# Words with a token of their own; all others are spelt out in bytes.
WORDS = (
    "a",
    "the",
    "and",
    "of",
    "with",
    "on",
    "red",
    "green",
    "blue",
    "round",
    "bear",
    "dog",
    "cat",
    "person",
    "object",
    "visual",
)
START, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


def _pieces(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """What byte pair encoding makes of a word: of the neighbours that merge, the earliest merge first."""
    parts = [*word[:-1], word[-1] + _WORD_END]
    while True:
        known = [pair for pair in pairwise(parts) if pair in ranks]
        if not known:
            return parts
        first = min(known, key=ranks.__getitem__)
        joined, index = [], 0
        while index < len(parts):
            step = 2 if tuple(parts[index : index + 2]) == first else 1
            joined.append("".join(parts[index : index + step]))
            index += step
        parts = joined


def clip_tokenizer(words: Iterable[str] = WORDS, size: int = 1000) -> CLIPTokenizer:
    """A tokenizer with `size` tokens: every byte, inside of a word and at its end, the `words`, each one token, what
    they are merged from, fillers, and last the start and the end of a text.
    """
    alphabet = sorted(ByteLevel.alphabet())
    tokens = dict.fromkeys([*alphabet, *(letter + _WORD_END for letter in alphabet)])
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        # What is left of a word after the merges of those before it is merged last, so theirs stay as they are.
        part, *rest = _pieces(word, ranks)
        for piece in rest:
            ranks[part, piece] = len(ranks)
            part += piece
            tokens[part] = None
    if len(tokens) + 2 > size:
        raise ValueError(f"{len(tokens) + 2} tokens do not fit in {size}")
    fillers = [f"<|filler{number}|>" for number in range(size - 2 - len(tokens))]
    vocabulary = {token: number for number, token in enumerate([*tokens, *fillers, START, END])}
    return CLIPTokenizer(vocab=vocabulary, merges=list(ranks), model_max_length=32)
