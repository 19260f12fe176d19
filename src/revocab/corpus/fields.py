"""Which field of a row holds the text, and which says of what kind it is, where the config does not name them."""

import logging
from collections.abc import Collection, Iterable
from typing import Any

log = logging.getLogger(__name__)

# Names that data sets give to their text, the most usual first.
TEXT_FIELDS = ("text", "abstract", "content", "contents", "document", "body", "article", "passage")

KIND_FIELDS = ("kind", "type", "journal", "source")  # the first of them that a row has


def kind_of(row: Any, named: str | None) -> str | None:
    """What the row says of what kind its text is; None where it says nothing, or more than a word or a number."""
    if not isinstance(row, dict):
        return None
    values = (row.get(name) for name in (KIND_FIELDS if named is None else (named,)))
    return next((str(value) for value in values if isinstance(value, str | int) and str(value).strip()), None)


class TextField:
    """The field named in the config or, without one, the first of `TEXT_FIELDS` that a row of the source has.

    The first row with such a string decides for its whole source, so that no two rows give different kinds of text.
    """

    def __init__(self, named: str | None, source: str) -> None:
        self.name, self._source = named, source

    def of(self, row: Any) -> Any:
        """The text of the row; None where it has none."""
        if not isinstance(row, dict):
            return None
        if self.name is None:
            self.name = next((name for name in TEXT_FIELDS if isinstance(row.get(name), str)), None)
            if self.name not in (None, "text"):
                log.info("%s: the text is read from the field %r", self._source, self.name)
        return row.get(self.name) if self.name is not None else None

    def among(self, columns: Iterable[str], besides: Collection[str] = ()) -> list[str] | None:
        """Those of the columns that can hold the text, and those `besides`; None, which stands for all, if no column
        can hold the text."""
        wanted = TEXT_FIELDS if self.name is None else (self.name,)
        columns = list(columns)
        if not any(name in wanted for name in columns):
            return None
        return [name for name in columns if name in wanted or name in besides]

    def __str__(self) -> str:
        return repr(self.name) if self.name is not None else "that is one of " + ", ".join(TEXT_FIELDS)
