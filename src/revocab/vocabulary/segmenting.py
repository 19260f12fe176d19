"""A text as the tokens that it is cut into, for people to read."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from revocab.vocabulary.surfaces import read_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Segment(NamedTuple):
    """One token of a text."""

    text: str  # what it stands for, or the bytes of a part of a character in hexadecimal, such as E2 82
    bytes: int  # of the text
    whole: bool  # whether `text` is text


def segments_of(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], ids: Sequence[Sequence[int]]
) -> list[list[Segment]]:
    """Each text as segments, one for each of its ids.

    The space that a SentencePiece tokenizer puts before a text is not one of its bytes. A token that stands for no
    bytes, such as one for what is unknown, has its own name for a text.
    """
    vocabulary = read_vocabulary(tokenizer)
    found = []
    for text, row in zip(texts, ids, strict=True):
        parts = [vocabulary.surfaces[token_id] for token_id in row]
        names = [None if part else vocabulary.tokens[token_id] for token_id, part in zip(row, parts, strict=True)]
        if parts and parts[0].startswith(b" ") and not text.startswith(" "):
            parts[0] = parts[0][1:]
        found.append([_segment(part, name) for part, name in zip(parts, names, strict=True)])
    return found


def _segment(part: bytes, name: str | None) -> Segment:
    if name is not None:
        return Segment(text=name, bytes=0, whole=True)
    try:
        return Segment(text=part.decode(), bytes=len(part), whole=True)
    except UnicodeDecodeError:
        return Segment(text=part.hex(" ").upper(), bytes=len(part), whole=False)
