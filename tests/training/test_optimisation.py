"""Weight decay and schedule, against their formulas."""

import importlib.util
import math

import pytest
import torch
from torch import nn

from revocab.errors import ConfigError, MissingDependencyError
from revocab.training.optimisation import (
    OPTIMIZERS,
    learning_rate_factor,
    optimiser_factory,
    parameter_groups,
    warmup_steps,
)


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
    groups = parameter_groups(module.named_parameters(), 0.1)
    assert [[id(p) for p in group["params"]] for group in groups] == [
        [id(module[2].weight)],
        [id(module[1].weight), id(module[1].bias), id(module[2].bias)],
    ]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_tables_follow_a_rate_of_their_own(settings):
    module = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2))
    chosen = settings(steps=8, warmup_share=0.25, learning_rate=0.1, table_learning_rate=0.4)
    optimiser, schedule = optimiser_factory(chosen, ["0.weight"])(module)
    groups = optimiser.param_groups
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    assert [[names[id(p)] for p in group["params"]] for group in groups] == [["1.weight"], ["1.bias"], ["0.weight"]]
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0, 0.01]
    for step in range(8):
        factor = learning_rate_factor(step, steps=8, warmup=2)
        assert [group["lr"] for group in groups] == pytest.approx([0.1 * factor, 0.1 * factor, 0.4 * factor])
        optimiser.step()
        schedule.step()


def test_without_a_rate_of_their_own_tables_are_as_all_else(settings):
    module = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2))
    optimiser, _ = optimiser_factory(settings(), ["0.weight"])(module)
    assert [len(group["params"]) for group in optimiser.param_groups] == [2, 1]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_takes_the_steps_of_adamw(name, settings):
    """Against AdamW written out (Loshchilov and Hutter 2019, algorithm 2) in float64; 8 bits round the moments."""
    if name == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    module = nn.Linear(128, 64, bias=False)  # 8,192 values: enough for 8 bits
    chosen = settings(optimizer=name, steps=20, warmup_share=0.0, learning_rate=0.01, weight_decay=0.1)
    optimiser, schedule = optimiser_factory(chosen)(module)
    weight = module.weight.detach().double()
    start, first, second = weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(20):
        gradient = torch.randn(64, 128)
        module.weight.grad = gradient
        optimiser.step()
        schedule.step()
        rate, gradient = 0.01 * learning_rate_factor(step, steps=20, warmup=0), gradient.double()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        change = (first / (1 - 0.9 ** (step + 1))) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
        weight = weight * (1 - rate * 0.1) - rate * change
    error = float((module.weight.detach().double() - weight).norm() / (weight - start).norm())
    assert error < (0.1 if name == "adamw_8bit" else 1e-5)
    assert (error > 1e-4) is (name == "adamw_8bit")  # it does round


def test_8_bits_keep_the_moments_in_8_bits(settings):
    pytest.importorskip("bitsandbytes")
    module = nn.Linear(128, 64)
    optimiser, _ = optimiser_factory(settings(optimizer="adamw_8bit"))(module)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    kinds = {name: optimiser.state[p]["state1"].dtype for name, p in module.named_parameters()}
    assert kinds == {"weight": torch.uint8, "bias": torch.float32}


def test_8_bits_without_the_package_is_one_line(settings, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"adamw_8bit needs the package bitsandbytes.*revocab\[eightbit\]"):
        optimiser_factory(settings(optimizer="adamw_8bit"))


def test_unknown_optimiser(settings):
    with pytest.raises(ConfigError, match=r"vocab\.stage2_optimizer must be one of adamw_torch.*, got 'sgd'"):
        optimiser_factory(settings(optimizer="sgd"))
