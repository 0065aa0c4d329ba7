"""The tokenizer of checkpoints that are made here."""

from snow_export.tiny.captions import words
from snow_export.words import WORDS, clip_tokenizer


def test_every_word_is_one_token_whatever_words_come_before_it():
    for given in (WORDS, words(), ["ab", "abc", "bc", "abcbc", "cab", "bcab"], ["ring", "string", "rings", "ri"]):
        tokens = clip_tokenizer(given)
        assert [len(tokens(word).input_ids) for word in given] == [3] * len(given)


def test_other_words_are_spelt():
    tokens = clip_tokenizer(["ring"])
    assert tokens.tokenize("bring") == ["b", "ring</w>"]
    assert tokens.tokenize("zoo") == ["z", "o", "o</w>"]
