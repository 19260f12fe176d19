"""Settings that cannot work are named by the user's key; the digest changes with whatever changes the result."""

import pytest

from revocab.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": -3}, r"vocab\.stage1_steps must be at least 1, got -3"),
        ({"name": "probe", "steps": -1}, r"vocab\.probe_steps must be at least 1, got -1"),
        ({"name": "stage2", "learning_rate": -1.0}, r"vocab\.lr_stage2 must be at least 0"),
        ({"name": "probe", "learning_rate": float("nan")}, r"vocab\.probe_lr must be at least 0, got nan"),
        ({"batch_size": 0}, r"vocab\.batch_size must be at least 1"),
        ({"max_seq_length": 1}, r"vocab\.max_seq_length must be at least 2"),
        ({"warmup_share": 1.0}, r"vocab\.warmup_share must be in \[0, 1\)"),
        ({"kind": "heads"}, "must be tables or full or lora or lora_tables or first_last"),
        ({"kind": "lora", "lora": None}, r"vocab\.stage2_use_lora"),
        ({"kind": "lora_tables", "lora": None}, r"vocab\.stage2_use_lora"),
        ({"table_learning_rate": -1.0}, r"vocab\.lr_tables must be at least 0"),
        ({"start_document": -1}, r"vocab\.train_start_idx_stage2 must be at least 0"),
    ],
)
def test_values_that_cannot_work(changes, message, settings):
    with pytest.raises(ConfigError, match=message):
        settings(**changes).check()


def test_digest_changes_with_what_changes_the_result(settings):
    base = settings().digest(tokens=3)
    assert settings().digest(tokens=3) == base
    assert settings(learning_rate=2e-2).digest(tokens=3) != base
    assert settings(seed=6).digest(tokens=3) != base
    assert settings().digest(tokens=4) != base
    assert settings(checkpoint_every=9, log_every=2).digest(tokens=3) == base
