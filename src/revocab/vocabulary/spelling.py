"""How a tokenizer spells bytes in its token strings: three alphabets cover the tokenizers of causal language models."""

import json
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from revocab.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SENTENCEPIECE_MARK = "▁"
BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


class Kind(Enum):
    BYTE_LEVEL = "byte-level"  # each byte is one printable character: GPT-2, Llama-3, SmolLM2
    SENTENCEPIECE = "SentencePiece"  # characters, `▁` for a space, `<0x0A>` for a byte: Mistral, Gemma, T5
    WORDPIECE = "WordPiece"  # characters, `##` before what goes on with a word: BERT


def _byte_alphabet() -> dict[int, str]:
    """The character that stands for each byte in byte-level vocabularies (Radford et al. 2019, GPT-2).

    Bytes that are printable in Latin-1 stand for themselves; the others, in order, take the characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + rank) for rank, byte in enumerate(others)}


BYTE_TO_CHARACTER = _byte_alphabet()

# For str.translate: to the bytes, as Latin-1; what of Latin-1 is not in the alphabet to a character outside Latin-1.
_ALPHABET_TO_LATIN: dict[int, str] = dict.fromkeys(range(256), "\uffff")
_ALPHABET_TO_LATIN |= {ord(character): chr(byte) for byte, character in BYTE_TO_CHARACTER.items()}


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """The alphabet of one tokenizer."""

    kind: Kind
    mark: str  # stands for a space (SentencePiece)
    byte_pieces: bool  # `<0x0A>` stands for a byte (SentencePiece)
    continuing: str  # stands before a piece that goes on with a word (WordPiece)
    backend: "Tokenizer"

    @classmethod
    def of(cls, backend: "Tokenizer") -> "Spelling":
        """Read off the tokenizer's model, normaliser, pre-tokenizer and decoder.

        Raises:
            ModelError: a kind whose token strings cannot be turned into bytes.
        """
        model = backend.model
        parts = [part for each in _components(backend) for part in _parts(each)]
        types = {part["type"] for part in parts}
        byte_pieces = bool(getattr(model, "byte_fallback", False)) or "ByteFallback" in types
        marks = [part["replacement"] for part in parts if part["type"] == "Metaspace"]
        has_mark = bool(marks) or byte_pieces or any(SENTENCEPIECE_MARK in str(each) for each in _components(backend))
        name = type(model).__name__
        affixes = name == "BPE" and (model.end_of_word_suffix or model.continuing_subword_prefix)
        if name == "WordPiece":
            kind = Kind.WORDPIECE
        elif name in ("BPE", "Unigram") and "ByteLevel" in types and not affixes:
            kind = Kind.BYTE_LEVEL
        elif name in ("BPE", "Unigram") and has_mark and not affixes:
            kind = Kind.SENTENCEPIECE
        else:
            raise ModelError(
                f"Tokens of this {name} tokenizer cannot be read as bytes; supported are byte-level BPE, SentencePiece "
                "(BPE or Unigram, ▁ as space) and WordPiece."
            )
        return cls(
            kind=kind,
            mark=marks[0] if marks else SENTENCEPIECE_MARK,
            byte_pieces=byte_pieces and kind is Kind.SENTENCEPIECE,
            continuing=model.continuing_subword_prefix if kind is Kind.WORDPIECE else "",
            backend=backend,
        )

    def is_byte_piece(self, token: str) -> bool:
        return self.byte_pieces and BYTE_PIECE.fullmatch(token) is not None

    def surface(self, token: str) -> bytes:
        """The bytes that a token of the tokenizer's model stands for, a word-start mark as a space."""
        if self.kind is Kind.BYTE_LEVEL:
            try:
                return token.translate(_ALPHABET_TO_LATIN).encode("latin-1")
            except UnicodeEncodeError:  # added as plain text, such as the runs of spaces of GPT-NeoX
                return token.encode()
        if self.kind is Kind.SENTENCEPIECE:
            if self.byte_pieces and (match := BYTE_PIECE.fullmatch(token)):
                return bytes([int(match[1], 16)])
            return token.replace(self.mark, " ").encode()
        if token.startswith(self.continuing) and len(token) > len(self.continuing):
            return token[len(self.continuing) :].encode()
        return (" " + token if self.starts_word(token) else token).encode()

    def starts_word(self, token: str) -> bool:
        """Whether a WordPiece token without `##` has a space before it in text.

        Words have; punctuation and Chinese characters, which the tokenizer cuts off their neighbours anyway, need not.
        """
        if len(token) > 1 and any(character.isalnum() for character in token):
            return True
        return len(self.words(f"a{token}")) == 1

    def words(self, text: str) -> list[str]:
        """The words that a WordPiece tokenizer makes of a text before it cuts them."""
        normalizer, pre_tokenizer = self.backend.normalizer, self.backend.pre_tokenizer
        text = normalizer.normalize_str(text) if normalizer else text
        return [word for word, _ in pre_tokenizer.pre_tokenize_str(text)] if pre_tokenizer else text.split()

    @cached_property
    def byte_ids(self) -> list[int | None]:
        """(256,) the id that stands for a single byte whatever is around it; None where there is none."""
        if self.kind is Kind.BYTE_LEVEL:
            return [self.backend.token_to_id(BYTE_TO_CHARACTER[byte]) for byte in range(256)]
        if self.byte_pieces:
            return [self.backend.token_to_id(f"<0x{byte:02X}>") for byte in range(256)]
        return [None] * 256


def without_dropout(backend: "Tokenizer") -> "Tokenizer":
    """The tokenizer, or a copy where it was saved with BPE dropout: another thread may be using the one it was."""
    if getattr(backend.model, "dropout", None) is None:
        return backend
    copy = type(backend).from_str(backend.to_str())
    copy.model.dropout = None
    return copy


@contextmanager
def undisturbed(backend: "Tokenizer") -> Generator["Tokenizer"]:
    """The tokenizer without truncation, padding and BPE dropout, whatever it was saved with, while the body runs.

    Truncation and padding come back behind the body, so that two threads cannot be in it with one tokenizer.
    """
    backend = without_dropout(backend)
    truncation, padding = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    try:
        yield backend
    finally:
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)


def _components(backend: "Tokenizer") -> list[Any]:
    """Normaliser, pre-tokenizer and decoder as the JSON of tokenizer.json; the model's is large and not needed."""
    components = (backend.normalizer, backend.pre_tokenizer, backend.decoder)
    return [json.loads(each.__getstate__()) for each in components if each is not None]


def _parts(component: Any) -> Iterator[dict[str, Any]]:
    """A component and, in a Sequence, all that it is made of."""
    if isinstance(component, dict):
        if "type" in component:
            yield component
        for value in component.values():
            yield from _parts(value)
    elif isinstance(component, list):
        for value in component:
            yield from _parts(value)
