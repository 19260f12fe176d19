"""Shared by all tests: no network, no account, few threads, and a fresh Hydra for each."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import settings

# The same examples in every run: a change that passes passes again. HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(autouse=True)
def fresh_hydra():
    """Hydra is global; a test that left it initialised would break the next."""
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


@pytest.fixture(autouse=True)
def own_wandb_service():
    """W&B leaves the address of its service in the environment; a script that a test starts may find it gone."""
    os.environ.pop("WANDB_SERVICE", None)
