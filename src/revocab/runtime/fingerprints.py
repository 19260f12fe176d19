"""What stands for a model or a text in a cache key: content, not its place on this machine."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EDGE_BYTES = 1 << 20


def of_model(name: str, gguf_file: str | None) -> Any:
    """A local folder by its files (size, and a hash of their first and last MB); a Hub model by its id."""
    folder = Path(name)
    if not folder.is_dir():
        return {"id": name, "gguf_file": gguf_file}
    weights = [folder / gguf_file] if gguf_file else sorted([*folder.glob("*.safetensors"), folder / "config.json"])
    return {path.name: _edges(path) for path in weights if path.is_file()}


def of_folder(folder: Path) -> dict[str, Any]:
    """All files below it, as those of a model."""
    return {str(path.relative_to(folder)): _edges(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _edges(path: Path) -> list[Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        content = hashlib.sha256(file.read(EDGE_BYTES))
        file.seek(max(0, size - EDGE_BYTES))
        content.update(file.read(EDGE_BYTES))
    return [size, content.hexdigest()[:16]]


def of_tokenizer(tokenizer: Any) -> str:
    """By its whole definition and its special roles."""
    roles = sorted((role, str(token)) for role, token in tokenizer.special_tokens_map.items())
    return hashlib.sha256(f"{tokenizer.backend_tokenizer.to_str()}{roles}".encode()).hexdigest()[:16]


def of_texts(texts: Sequence[str]) -> str:
    content = hashlib.sha256()
    for text in texts:
        content.update(text.encode())
        content.update(b"\0")
    return content.hexdigest()[:16]
