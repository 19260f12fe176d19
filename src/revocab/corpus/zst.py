"""Zstandard files as a stream that notices when the end is missing.

The stream reader of the `zstandard` package ends quietly where a file was cut off, so half of a download would read as
a short corpus.
"""

import io
from typing import Any, BinaryIO

import zstandard
from zstandard import ZstdDecompressor

# Small enough that even text which shrinks a thousandfold is decompressed in pieces of some ten megabytes.
BLOCK_BYTES = 1 << 14


class ZstdStream(io.RawIOBase):
    """The decompressed bytes of one or several frames that follow one another (as `cat a.zst b.zst` writes them).

    Raises:
        EOFError: while reading, if the last frame is not complete.
        zstandard.ZstdError: while reading, if the bytes are not Zstandard's.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._compressed = b""
        self._text = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._text:
            self._compressed = self._compressed or self._raw.read(BLOCK_BYTES)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("the end of the file is missing")
                return 0
            self._text = memoryview(self._decompress())
        count = min(len(buffer), len(self._text))
        buffer[:count] = self._text[:count]
        self._text = self._text[count:]
        return count

    def _decompress(self) -> bytes:
        self._frame = self._frame or ZstdDecompressor().decompressobj()
        text = self._frame.decompress(self._compressed)
        self._compressed = b""
        if self._frame.eof:
            self._compressed, self._frame = self._frame.unused_data, None
        return text
