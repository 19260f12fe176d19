"""Words and phrases added to a BPE tokenizer so that it emits each as one token, and cuts all other text as before.

The library's added tokens cannot do that: they are matched in the raw text, so that one that begins with a space may
not be limited to whole words (`single_word` looks at the character before the space), and one without the space loses
it (`lstrip`), or leaves it to a token of its own; in SentencePiece tokenizers the text behind one is given a word start
that was not there. Merges cannot do it either: the steps in between would be tokens, and would appear in other words.

So a term becomes an entry of the model's vocabulary, with its word start, that no merge leads to:

- `ignore_merges` makes the model look up a whole pre-token before it merges anything, as Llama-3's does;
- the pre-tokenizer cuts terms out as pre-tokens: each pattern that it splits by gets them as first alternative;
- an entry that merges never reach (`<0x41>`, some rare tokens), but that a look-up would find, is cut by one more split
  where the merges would have cut it.

Decoding, and reading the bytes of a token, need nothing new.
"""

import copy
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revocab.errors import ModelError
from revocab.runtime.files import write_json, write_text
from revocab.vocabulary.loading import load_tokenizer
from revocab.vocabulary.spelling import BYTE_TO_CHARACTER, Kind, Spelling, undisturbed
from revocab.vocabulary.surfaces import vocabulary_size

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

END = ""  # in a tree of characters: a term may end here
# What `ByteLevel` splits by when it is asked to split (Radford et al. 2019, GPT-2).
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def extend_tokenizer(tokenizer: "PreTrainedTokenizerBase", terms: Sequence[str], folder: Path) -> list[str]:
    """Write a copy of the tokenizer that also has the terms into `folder`; load it with `load_tokenizer`.

    A term is emitted where a space (or the word start that a SentencePiece tokenizer gives to the beginning of a text)
    stands before it and the word ends with it: no letter, digit or underscore follows, or the tokenizer's own patterns
    cut there. Of several terms that fit the longest is emitted. Text without any term is cut as before. Ids of old
    tokens stay; terms take the ids behind them, in their order.

    Returns:
        the terms that were added: those that were no tokens yet and that the new tokenizer emits. Where a pre-tokenizer
        cannot be told to keep a phrase together, phrases are left out.

    Raises:
        ModelError: not a BPE tokenizer.
    """
    spelling = Spelling.of(tokenizer.backend_tokenizer)
    if type(tokenizer.backend_tokenizer.model).__name__ != "BPE":
        name = type(tokenizer.backend_tokenizer.model).__name__
        raise ModelError(f"Terms can be added to BPE tokenizers only; the target is {name}. Choose terms=none.")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    # A class of its own may rebuild the pre-tokenizer on loading; this one takes tokenizer.json as it is.
    write_json(settings, {**json.loads(settings.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"})
    known = tokenizer.get_vocab()
    wanted = [term for term in dict.fromkeys(terms) if _spelled(term, spelling) not in known]
    while True:
        definition = extended_definition(tokenizer, spelling, wanted)
        write_text(folder / "tokenizer.json", json.dumps(definition, ensure_ascii=False))
        emitted = emitted_terms(load_tokenizer(str(folder)), wanted)
        if len(emitted) == len(wanted):
            return wanted
        wanted = emitted


def emitted_terms(tokenizer: "PreTrainedTokenizerBase", terms: Sequence[str]) -> list[str]:
    """The terms that come out as one token within a text that decodes to itself."""
    texts = [f"(( {term}))" for term in terms]
    with undisturbed(tokenizer.backend_tokenizer) as backend:
        bare = len(backend.encode("((", add_special_tokens=False).ids)
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
    found = []
    for term, text, encoding in zip(terms, texts, encodings, strict=True):
        rest = backend.decode(encoding.ids[bare : bare + 1], skip_special_tokens=False)
        if rest.lstrip(" ") == term and backend.decode(encoding.ids, skip_special_tokens=False) == text:
            found.append(term)
    return found


def extended_definition(tokenizer: "PreTrainedTokenizerBase", spelling: Spelling, terms: Sequence[str]) -> dict:
    """tokenizer.json with the terms, none of which is a token yet."""
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    if not terms:
        return definition
    model = definition["model"]
    # On loading, the library numbers added tokens that the model does not know after the model's last.
    model["vocab"].update({token["content"]: token["id"] for token in definition["added_tokens"]})
    first = vocabulary_size(tokenizer)
    model["vocab"].update({_spelled(term, spelling): first + rank for rank, term in enumerate(terms)})
    guard = [] if model.get("ignore_merges") else _guard(spelling, tokenizer)
    model["ignore_merges"] = True
    pattern = terms_pattern(terms, spelling.mark if spelling.kind is Kind.SENTENCEPIECE else " ")
    steps = with_terms(_steps(definition["pre_tokenizer"]), pattern, spelling)
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*steps, *guard]}
    return definition


def _spelled(term: str, spelling: Spelling) -> str:
    if spelling.kind is Kind.BYTE_LEVEL:
        return "".join(BYTE_TO_CHARACTER[byte] for byte in f" {term}".encode())
    return f" {term}".replace(" ", spelling.mark)


# --- pre-tokenizer


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The parts of a pre-tokenizer, out of all nested sequences."""
    if pre_tokenizer is None:
        return []
    if pre_tokenizer["type"] != "Sequence":
        return [pre_tokenizer]
    return [step for part in pre_tokenizer["pretokenizers"] for step in _steps(part)]


def with_terms(steps: Sequence[dict[str, Any]], terms: str, spelling: Spelling) -> list[dict[str, Any]]:
    """The same pre-tokenizer, but that a match of the pattern `terms` stays whole and alone, if no other step cuts it.

    Where the pattern does not match, nothing changes: it only stands before the alternatives that were there.
    """
    new: list[dict[str, Any]] = []
    reached = False
    for step in steps:
        changed = _with_terms(copy.deepcopy(step), terms, spelling)
        reached = reached or changed != [step]
        new.extend(changed)
    if not reached and spelling.kind is Kind.SENTENCEPIECE:
        new.append(_split(terms))
    return new


def _with_terms(step: dict[str, Any], terms: str, spelling: Spelling) -> list[dict[str, Any]]:
    if step["type"] == "Split" and _keeps_matches_alone(step):
        pattern = step["pattern"].get("Regex") or re.escape(step["pattern"]["String"])
        return [{**step, "pattern": {"Regex": f"{terms}|(?:{pattern})"}}]
    if step["type"] == "ByteLevel" and spelling.kind is Kind.BYTE_LEVEL:
        if not step.get("use_regex", True):
            return [_split(terms), step]
        if not step["add_prefix_space"]:  # which it would add to each part of a text that is split before
            return [_split(f"{terms}|(?:{GPT2_PATTERN})"), {**step, "use_regex": False}]
    if step["type"] == "Metaspace":
        mark = re.escape(spelling.mark)
        words = f"|{mark}[^{mark}]*|[^{mark}]+" if step.get("split", True) else ""
        return [{**step, "split": False}, _split(terms + words)]
    return [step]


def _keeps_matches_alone(step: dict[str, Any]) -> bool:
    return step["behavior"] == "Isolated" or (step["behavior"] == "Removed" and step["invert"])


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _guard(spelling: Spelling, tokenizer: "PreTrainedTokenizerBase") -> list[dict[str, Any]]:
    """A split that cuts pre-tokens which are a token that merges do not reach, where merges would have cut first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    rests: dict[str, list[str]] = defaultdict(list)
    with undisturbed(spelling.backend) as backend:
        for entry, token_id in backend.get_vocab(with_added_tokens=False).items():
            if entry and entry not in added and (length := _first_piece(backend, entry, token_id)):
                rests[entry[:length]].append(entry[length:])
    if not rests:
        return []
    cuts = (f"{re.escape(first)}(?=(?:{_any_of(sorted(rest))})\\z)" for first, rest in sorted(rests.items()))
    return [_split(f"\\A(?:{'|'.join(cuts)})")]


def _first_piece(backend: "Tokenizer", entry: str, token_id: int) -> int:
    """Characters of the first piece that merges make of an entry; 0 where it is the entry, or nothing to cut."""
    pieces = backend.model.tokenize(entry)
    if [piece.id for piece in pieces] == [token_id]:
        return 0
    length = len(entry.encode()[: pieces[0].offsets[1]].decode(errors="ignore")) if pieces else 0
    return length if 0 < length < len(entry) else 0


# --- patterns


def terms_pattern(terms: Iterable[str], space: str) -> str:
    """A regular expression of Oniguruma for any of the terms, longest first, with a space before and no word after."""
    return f"{re.escape(space)}(?:{_any_of(term.replace(' ', space) for term in terms)})(?!\\w)"


def _any_of(texts: Iterable[str]) -> str:
    """The texts as one expression that shares their beginnings: each character is looked at once."""
    tree: dict[str, Any] = {}
    for text in texts:
        node = tree
        for character in text:
            node = node.setdefault(character, {})
        node[END] = {}
    return _pattern(tree)


def _pattern(node: dict[str, Any]) -> str:
    branches = [re.escape(character) + _pattern(child) for character, child in node.items() if character != END]
    if not branches:
        return ""
    if END in node:
        return f"(?:{'|'.join(branches)})?"
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
