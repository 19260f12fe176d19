from hypothesis import given
from hypothesis import strategies as st

from revocab.evaluation.windows import batches_of, windows_of


@given(length=st.integers(0, 200), max_length=st.integers(4, 40))
def test_every_token_but_the_prefix_is_scored_once_with_context(length, max_length):
    windows = list(windows_of(0, length, max_length))
    scored = [token for window in windows for token in range(window.first, window.end)]
    assert scored == list(range(1, length))
    assert all(0 <= window.start < window.first and len(window) <= max_length for window in windows)


@given(length=st.integers(0, 200), max_length=st.integers(4, 40))
def test_later_windows_repeat_half_a_window(length, max_length):
    for window in list(windows_of(0, length, max_length))[1:]:
        assert window.first - window.start == max_length // 2


@given(lengths=st.lists(st.integers(2, 30), max_size=30), batch_tokens=st.integers(1, 100))
def test_batches_hold_every_window_once_within_the_budget(lengths, batch_tokens):
    windows = [window for number, length in enumerate(lengths) for window in windows_of(number, length, 100)]
    batches = list(batches_of(windows, batch_tokens))
    assert sorted(window.document for batch in batches for window in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(map(len, batch)) <= batch_tokens for batch in batches)
