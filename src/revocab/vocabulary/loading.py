"""Tokenizers from a local folder, the Hub or a GGUF file; whatever fails, fails within seconds and in one line."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revocab.errors import ModelError
from revocab.runtime.hub import hub_reachable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
PROBE_TEXT = "The cats don't sit on 2024 mats; naïve β-carotene,\n  two spaces and 12,345.67 µg/mL."
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")
PLAIN_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")  # two names of one class
SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


def load_tokenizer(
    name: str, *, gguf_file: str | None = None, trust_remote_code: bool = False
) -> "PreTrainedTokenizerBase":
    """A tokenizer by the name of a Hub repository or of a local folder, which wins if it exists.

    Without network the Hub's local cache is used. Folders with a raw SentencePiece file and no `tokenizer.json` are
    refused: their merges are rebuilt in the order of ids, not of scores, so that some texts (runs of spaces) are cut
    differently than by SentencePiece.

    Args:
        name: folder or Hub id.
        gguf_file: a GGUF file inside of it that holds the tokenizer; takes up to 20 s.
        trust_remote_code: run code that the repository brings along.

    Raises:
        ModelError: no such folder or repository, no tokenizer in it, a damaged one, or one without a fast backend.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        _check_folder(folder, gguf_file)
        as_saved = gguf_file is None and not trust_remote_code
        plain = as_saved and _is_plain(folder)
        tokenizer = _load(str(folder), gguf_file, trust_remote_code, offline=True, plain=plain)
        if as_saved:
            tokenizer = _as_saved(folder, tokenizer)
    elif _looks_like_path(name):
        raise ModelError(f"There is no folder {name!r}. Name a folder with a tokenizer.json, or a Hub id owner/name.")
    else:
        tokenizer = _load(name, gguf_file, trust_remote_code, offline=not hub_reachable())
        if gguf_file is None:
            _check_downloaded(name)
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ModelError(f"The tokenizer of {name} has no fast backend (tokenizer.json), which revocab works on.")
    return tokenizer


def _looks_like_path(name: str) -> bool:
    """Hub ids are `name` or `owner/name`."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name or not name


def _check_folder(folder: Path, gguf_file: str | None) -> None:
    if gguf_file is not None:
        if not (folder / gguf_file).is_file():
            found = ", ".join(sorted(path.name for path in folder.glob("*.gguf"))) or "none"
            raise ModelError(f"There is no file {gguf_file} in {folder}; GGUF files there: {found}.")
        return
    if (folder / "tokenizer.json").is_file():
        return
    if raw := next((each for each in SENTENCEPIECE_FILES if (folder / each).is_file()), None):
        raise ModelError(_raw_sentencepiece(str(folder), raw))
    if not any((folder / each).is_file() for each in TOKENIZER_FILES):
        gguf = next(iter(sorted(path.name for path in folder.glob("*.gguf"))), None)
        hint = f"; for the tokenizer inside of {gguf} set models.gguf_file={gguf}" if gguf else ""
        raise ModelError(f"The folder {folder} holds no tokenizer (no tokenizer.json){hint}.")


def _check_downloaded(name: str) -> None:
    """The same trap as in a folder, found in the Hub's cache after loading."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "tokenizer.json"), str):
        return
    for raw in SENTENCEPIECE_FILES:
        if isinstance(try_to_load_from_cache(name, raw), str):
            raise ModelError(_raw_sentencepiece(name, raw))


def _raw_sentencepiece(name: str, file: str) -> str:
    return (
        f"{name} has {file} but no tokenizer.json: raw SentencePiece merges are rebuilt in the wrong order and some "
        "texts would be cut differently. Use a copy of the tokenizer that has a tokenizer.json."
    )


def _is_plain(folder: Path) -> bool:
    """Whether the folder holds a tokenizer alone, and one of the plain class: `AutoTokenizer` would take that too."""
    if (folder / "config.json").exists() or not (folder / "tokenizer.json").is_file():
        return False
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return settings.get("tokenizer_class") in PLAIN_CLASSES and "auto_map" not in settings
    except (OSError, ValueError, AttributeError):  # none, or a damaged one: that is for AutoTokenizer to tell
        return False


def _load(
    name: str, gguf_file: str | None, trust_remote_code: bool, *, offline: bool, plain: bool = False
) -> "PreTrainedTokenizerBase":
    options: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file is not None else {}
    try:
        if plain:  # the import of AutoTokenizer reads the code of every model: seconds on a slow disk
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(name, local_files_only=offline)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            name, trust_remote_code=trust_remote_code, local_files_only=offline, **options
        )
    except Exception as error:  # OSError, ValueError, KeyError, the Rust backend's bare Exception: as the version likes
        raise ModelError(_reason(name, error, offline=offline)) from error
    if tokenizer is None:
        raise ModelError(f"{name} holds no tokenizer that transformers knows. Name a folder with a tokenizer.json.")
    return tokenizer


def _as_saved(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedTokenizerBase":
    """The tokenizer, or the plain class where it cuts text otherwise than the folder's tokenizer.json.

    For some model types (qwen2) transformers takes the class of the model and not the one that was saved, and builds
    its rules anew around the saved vocabulary.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if type(tokenizer) is PreTrainedTokenizerFast or not (folder / "tokenizer.json").is_file():
        return tokenizer
    saved = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if (
        tokenizer(PROBE_TEXT, add_special_tokens=False).input_ids
        == saved.encode(PROBE_TEXT, add_special_tokens=False).ids
    ):
        return tokenizer
    log.info("%s: read as its tokenizer.json says, which transformers' class for this model type does not", folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _reason(name: str, error: Exception, *, offline: bool) -> str:
    if "trust_remote_code" in str(error):
        return f"The tokenizer of {name} brings code of its own. If you trust it, load it with trust_remote_code=True."
    first_line = " ".join(str(error).split())[:200] or type(error).__name__
    if Path(name).is_dir():
        return f"The tokenizer in {name} cannot be loaded: {first_line}"
    if offline:
        return (
            f"There is no folder {name}, the Hub's local cache has no such tokenizer, and the Hub cannot be reached. "
            "Name a local folder with a tokenizer.json."
        )
    return f"The Hub's tokenizer {name} cannot be loaded (unknown name, or a licence to accept first?): {first_line}"
