import pytest
import torch

from revocab.runtime import threads


@pytest.mark.parametrize("before", [2, 12])
def test_few_threads_inside_and_as_many_as_before_behind(before):
    own = torch.get_num_threads()
    torch.set_num_threads(before)
    try:
        with threads.few_threads():
            assert torch.get_num_threads() == min(before, threads.FEW)
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(own)
