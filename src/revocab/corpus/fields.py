"""Which field of a row holds the text, where the config does not name one."""

import logging
from collections.abc import Iterable
from typing import Any

log = logging.getLogger(__name__)

# Names that data sets give to their text, the most usual first.
TEXT_FIELDS = ("text", "abstract", "content", "contents", "document", "body", "article", "passage")


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

    def among(self, columns: Iterable[str]) -> list[str] | None:
        """Those of the columns that can hold the text; None, which stands for all, if none of them can."""
        wanted = TEXT_FIELDS if self.name is None else (self.name,)
        return [name for name in columns if name in wanted] or None

    def __str__(self) -> str:
        return repr(self.name) if self.name is not None else "that is one of " + ", ".join(TEXT_FIELDS)
