"""The methods of alignment, found from the files of `methods/`: a new file there is a new method.

A method's file has a docstring that says what it does and where it comes from, and
- `NEEDS_VECTORS`: whether it compares token vectors;
- `propose(problem, settings)`: the rows that it has evidence for, as a `Proposal`.
"""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Protocol, cast

from revocab.alignment.problem import Problem, Settings
from revocab.alignment.proposal import Proposal
from revocab.errors import ConfigError

METHODS_FOLDER = Path(__file__).parent / "methods"


class Method(Protocol):
    """What the file of a method offers."""

    NEEDS_VECTORS: bool

    def propose(self, problem: Problem, settings: Settings) -> Proposal: ...


def methods() -> list[str]:
    """Return the names of all methods, sorted."""
    return sorted(module.name for module in iter_modules([str(METHODS_FOLDER)]))


def needs_vectors(method: str) -> bool:
    """Whether a method compares token vectors; without, a corpus need not be tokenized for it."""
    return load(method).NEEDS_VECTORS


def load(method: str) -> Method:
    """Return the method of that name.

    Raises:
        ConfigError: there is none.
    """
    if method not in methods():
        raise ConfigError("alignment.method", method, "one of " + ", ".join(methods()))
    return cast(Method, import_module(f"revocab.alignment.methods.{method}"))
