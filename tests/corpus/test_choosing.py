from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from revocab.corpus import first_by_hash


@given(st.lists(st.text(max_size=3)), st.integers(1, 8))
def test_equals_sorting_all_of_them(texts, count):
    expected = sorted(set(texts), key=lambda text: sha256(text.encode()).digest())[:count]
    assert first_by_hash(iter(texts), count) == expected


def test_the_order_of_the_stream_and_repeats_do_not_matter():
    texts = [f"document {number}" for number in range(500)]
    assert first_by_hash(texts, 20) == first_by_hash(texts[::-1] + texts, 20)
