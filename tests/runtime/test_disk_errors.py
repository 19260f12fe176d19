"""What a disk refuses becomes one line that names the folder; other errors pass."""

import errno
import os
from pathlib import Path

import pytest

from revocab.errors import ResourceError
from revocab.runtime.files import DISK_ERRORS, disk_errors


@pytest.mark.parametrize("number", DISK_ERRORS)
def test_a_disk_that_refuses_is_named(number):
    with (
        pytest.raises(ResourceError, match="Cannot write to some/folder: ") as caught,
        disk_errors(Path("some/folder")),
    ):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "i/o"), FileNotFoundError(errno.ENOENT, "none"), ValueError("x")])
def test_other_errors_pass_unchanged(error):
    with pytest.raises(type(error)) as caught, disk_errors(Path("folder")):
        raise error
    assert caught.value is error
