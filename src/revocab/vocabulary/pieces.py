"""The tokens of one vocabulary cut into tokens of another."""

import re
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from revocab.artifacts import Pieces, Vocabulary
from revocab.vocabulary.spelling import BYTE_TO_CHARACTER, Kind, Spelling, without_dropout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Cutter = Callable[[bytes], list[int]]

# `bytes.decode(errors="surrogateescape")` turns a byte that is not UTF-8 into one of these characters.
_ESCAPED = r"\udc80-\udcff"
_LATIN_TO_ALPHABET = {byte: character for byte, character in BYTE_TO_CHARACTER.items() if chr(byte) != character}


def cut_into_pieces(tokenizer: "PreTrainedTokenizerBase", source: Vocabulary, target: Vocabulary) -> Pieces:
    """For each target token the source tokens that the source tokenizer cuts its surface into.

    The tokenizer's model cuts the surface spelled in its own alphabet, past normaliser and pre-tokenizer, so that no
    word-start mark is added and none is lost: joined, the surfaces of the pieces are the surface of the token. What is
    not UTF-8 (tokens that hold part of a character) is spelled by byte pieces. Bytes and characters that the source
    cannot spell at all are left out. WordPiece tokens never hold spaces, so only there the text is first cut into
    words; the first is continued (`##`) unless a space stands before it.

    Args:
        tokenizer: the source tokenizer.
        source: its vocabulary.
        target: the vocabulary whose tokens are cut; special tokens get no pieces.
    """
    spelling = Spelling.of(without_dropout(tokenizer.backend_tokenizer))
    make_cutter = {
        Kind.BYTE_LEVEL: _byte_level_cutter,
        Kind.SENTENCEPIECE: _sentencepiece_cutter,
        Kind.WORDPIECE: _wordpiece_cutter,
    }[spelling.kind]
    ids, offsets = array("q"), array("q", [0])
    cut = make_cutter(spelling)
    for surface in target.surfaces:
        if surface:
            ids.extend(piece for piece in cut(surface) if not source.special[piece])
        offsets.append(len(ids))
    return Pieces(ids=np.array(ids, dtype=np.int64), offsets=np.array(offsets, dtype=np.int64))


def _byte_level_cutter(spelling: Spelling) -> Cutter:
    tokenize = spelling.backend.model.tokenize

    def cut(surface: bytes) -> list[int]:
        return [token.id for token in tokenize(surface.decode("latin-1").translate(_LATIN_TO_ALPHABET))]

    return cut


def _sentencepiece_cutter(spelling: Spelling) -> Cutter:
    tokenize, mark, byte_ids = spelling.backend.model.tokenize, spelling.mark, spelling.byte_ids
    # A mark that is itself in the text would read as a space, so it is spelled by bytes as well.
    spelled_by_bytes = re.compile(f"([{_ESCAPED}{re.escape(mark)}]+)")

    def cut(surface: bytes) -> list[int]:
        text = surface.decode("utf-8", errors="surrogateescape")
        if not spelled_by_bytes.search(text):
            return [token.id for token in tokenize(text.replace(" ", mark))]
        ids: list[int] = []
        for index, run in enumerate(spelled_by_bytes.split(text)):
            if index % 2:
                found = (byte_ids[byte] for byte in run.encode("utf-8", errors="surrogateescape"))
                ids.extend(byte_id for byte_id in found if byte_id is not None)
            elif run:
                ids.extend(token.id for token in tokenize(run.replace(" ", mark)))
        return ids

    return cut


def _wordpiece_cutter(spelling: Spelling) -> Cutter:
    vocabulary = spelling.backend.get_vocab(with_added_tokens=False)

    def cut(surface: bytes) -> list[int]:
        text = surface.decode("utf-8", errors="ignore")
        words = spelling.words(text)
        # Glued to a letter before it, a text that goes on with a word makes no word more.
        goes_on = bool(words) and not text[0].isspace() and len(spelling.words("a" + text)) == len(words)
        ids: list[int] = []
        for index, word in enumerate(words):
            ids.extend(_longest_matches(word, vocabulary, spelling.continuing, goes_on=goes_on and index == 0))
        return ids

    return cut


def _longest_matches(word: str, vocabulary: dict[str, int], prefix: str, *, goes_on: bool) -> list[int]:
    """Greedy longest match first (Wu et al. 2016); nothing if some part of the word is in no token.

    The library's own model cannot begin with a continuing piece.
    """
    ids: list[int] = []
    start = 0
    while start < len(word):
        mark = prefix if start or goes_on else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if mark + word[start:end] in vocabulary), None)
        if end is None:
            return []
        ids.append(vocabulary[mark + word[start:end]])
        start = end
    return ids
