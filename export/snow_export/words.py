"""A small tokenizer of CLIP's kind, for checkpoints that are not OpenAI's."""

from collections.abc import Iterable

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

# Words of its own token each; all others are spelt out in bytes.
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


def clip_tokenizer(words: Iterable[str] = WORDS, size: int = 1000) -> CLIPTokenizer:
    """A tokenizer with `size` tokens: every byte, inside of a word and at its end, the words' beginnings, fillers, and
    last the start and the end of a text.
    """
    alphabet = sorted(ByteLevel.alphabet())
    tokens = dict.fromkeys([*alphabet, *(letter + _WORD_END for letter in alphabet)])
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        letters = [*word[:-1], word[-1] + _WORD_END]
        part = letters[0]
        for letter in letters[1:]:
            merges[part, letter] = None
            part += letter
            tokens[part] = None
    if len(tokens) + 2 > size:
        raise ValueError(f"{len(tokens) + 2} tokens do not fit in {size}")
    fillers = [f"<|filler{number}|>" for number in range(size - 2 - len(tokens))]
    vocabulary = {token: number for number, token in enumerate([*tokens, *fillers, START, END])}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=32)
