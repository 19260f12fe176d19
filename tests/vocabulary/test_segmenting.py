"""Segments are the text, token by token, whatever the kind of tokenizer."""

import pytest

from revocab.vocabulary import segments_of
from revocab.vocabulary.encoding import encode_texts

TEXTS = ["the heart of the patients, enlarged", " a space before", "β-cells 中文 🧬 ÿ"]


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "sentencepiece_shifted"])
def test_segments_spell_the_text_and_count_its_bytes(kind, request):
    tokenizer = request.getfixturevalue(kind)
    ids = encode_texts(tokenizer, TEXTS)
    for text, row, segments in zip(TEXTS, ids, segments_of(tokenizer, TEXTS, ids), strict=True):
        assert len(segments) == len(row)
        spelled = b"".join(part.text.encode() if part.whole else bytes.fromhex(part.text) for part in segments)
        put_before = spelled.removesuffix(text.encode())
        assert put_before in (b"", b" ")  # SentencePiece puts a space before one that is there
        assert sum(part.bytes for part in segments) == len(spelled)
        assert put_before == b"" or text.startswith(" ")


def test_parts_of_characters_are_hexadecimal(sentencepiece):
    (segments,) = segments_of(sentencepiece, ["ÿ"], encode_texts(sentencepiece, ["ÿ"]))
    assert [(part.text, part.whole) for part in segments if not part.whole] == [("C3", False), ("BF", False)]


def test_what_is_unknown_has_its_name(wordpiece):
    (segments,) = segments_of(wordpiece, ["heart 🧬"], encode_texts(wordpiece, ["heart 🧬"]))
    assert [tuple(part) for part in segments] == [("heart", 5, True), ("[UNK]", 0, True)]
