"""Weight decay and schedule, against their formulas."""

import math

import pytest
import torch
from torch import nn

from revocab.errors import ConfigError
from revocab.training.optimisation import learning_rate_factor, optimiser_factory, parameter_groups, warmup_steps


def test_schedule_equals_the_formula():
    factors = [learning_rate_factor(step, steps=10, warmup=3) for step in range(11)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    for step in range(3, 11):
        assert factors[step] == pytest.approx(0.5 + 0.5 * math.cos(math.pi * (step - 3) / 7))
    assert factors[10] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("steps", "share", "warmup"), [(2500, 0.03, 75), (50, 0.03, 2), (1, 0.03, 0), (10, 0.0, 0)])
def test_warmup_steps(steps, share, warmup, settings):
    assert warmup_steps(settings(steps=steps, warmup_share=share)) == warmup
    assert 0 < learning_rate_factor(0, steps=steps, warmup=warmup) <= 1


def test_optimiser_follows_the_schedule(settings):
    module = nn.Linear(2, 2)
    optimiser, schedule = optimiser_factory(settings(steps=8, warmup_share=0.25, learning_rate=0.1))(module)
    rates = []
    for _ in range(8):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates == pytest.approx([0.1 * learning_rate_factor(k, steps=8, warmup=2) for k in range(8)])


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_fused"])
def test_decay_shrinks_matrices_without_gradient(name, settings):
    """AdamW: w <- w (1 - lr * decay) where the gradient is zero; norms and biases stay."""
    module = nn.Sequential(nn.Embedding(3, 2), nn.LayerNorm(2))
    before = {key: value.detach().clone() for key, value in module.named_parameters()}
    optimiser, _ = optimiser_factory(settings(learning_rate=0.1, weight_decay=0.5, warmup_share=0.0, optimizer=name))(
        module
    )
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    torch.testing.assert_close(module[0].weight, before["0.weight"] * (1 - 0.1 * 0.5))
    torch.testing.assert_close(module[1].weight, before["1.weight"], rtol=0, atol=0)


def test_only_what_requires_gradients_is_optimised():
    module = nn.Sequential(nn.Embedding(3, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    module[0].weight.requires_grad_(False)
    groups = parameter_groups(module.parameters(), 0.1)
    assert [[id(p) for p in group["params"]] for group in groups] == [
        [id(module[2].weight)],
        [id(module[1].weight), id(module[1].bias), id(module[2].bias)],
    ]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_unknown_optimiser(settings):
    with pytest.raises(ConfigError, match=r"vocab\.stage2_optimizer must be one of adamw_torch.*, got 'sgd'"):
        optimiser_factory(settings(optimizer="sgd"))
