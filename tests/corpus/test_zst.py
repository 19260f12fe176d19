"""Zstandard streams: any frames, any block sizes, and an end that is missing is noticed."""

import io

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from revocab.corpus import zst
from revocab.corpus.zst import ZstdStream


def frames(parts):
    return b"".join(zstandard.ZstdCompressor().compress(part) for part in parts)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.binary(max_size=400), max_size=4), size=st.integers(1, 300), block=st.integers(1, 64))
def test_frames_come_back_joined_whatever_the_sizes(parts, size, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zst, "BLOCK_BYTES", block)
        stream = ZstdStream(io.BytesIO(frames(parts)))
        assert b"".join(iter(lambda: stream.read(size), b"")) == b"".join(parts)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.binary(max_size=100), min_size=1, max_size=3), data=st.data())
def test_a_cut_inside_of_a_frame_is_noticed(parts, data):
    whole = frames(parts)
    ends = {len(frames(parts[:count])) for count in range(len(parts) + 1)}
    cut = data.draw(st.integers(0, len(whole)).filter(lambda cut: cut not in ends))
    with pytest.raises(EOFError, match="end of the file is missing"):
        ZstdStream(io.BytesIO(whole[:cut])).readall()


def test_a_large_frame_is_read_in_pieces():
    text = b"the same line again\n" * 500_000
    stream = io.BufferedReader(ZstdStream(io.BytesIO(frames([text]))))
    assert sum(len(line) for line in stream) == len(text)
