"""The errors a user can cause. Each is one line: what was wrong, what was expected, what to do.

Entry scripts print them without a traceback and exit with 1; anything else that is raised is a bug and shows one.
"""

from typing import Any


class RevocabError(Exception):
    """Base of all errors that are the user's to mend."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as it is: by default Python would call `__init__` with the finished message alone."""
        return type(self).__new__, (type(self), *self.args), self.__dict__


class ConfigError(RevocabError):
    """A configuration value that cannot work.

    Args:
        key: the full key, such as `vocab.lr_stage1`.
        value: what it was.
        expected: what it may be, a phrase that completes "must be ...".
        hint: what to do, a sentence or a command.
    """

    def __init__(self, key: str, value: object, expected: str, hint: str = "") -> None:
        self.key, self.value, self.expected = key, value, expected
        super().__init__(f"{key} must be {expected}, got {value!r}." + (f" {hint}" if hint else ""))


class DataError(RevocabError):
    """A corpus, data set or file that is missing, empty, unreadable or too small."""


class ModelError(RevocabError):
    """A model or tokenizer that cannot be loaded, or two that do not fit together."""


class MissingDependencyError(RevocabError):
    """An optional package that a chosen option needs."""

    def __init__(self, package: str, needed_by: str, install: str) -> None:
        self.package = package
        super().__init__(f"{needed_by} needs the package {package}, which is not installed. Install it: {install}")


class ResourceError(RevocabError):
    """A disk that is full, a folder that cannot be written, memory that does not suffice."""


class TrainingError(RevocabError):
    """Training that cannot go on, such as a loss that is not finite."""
