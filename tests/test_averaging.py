"""The average of weights and the learning rate that every training loop uses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from reverie.objectives.averaging import Average, learning_rate


def test_the_average_is_its_recursion():
    network = nn.Linear(1, 1, bias=False)
    average = Average(network, decay=0.5)
    expected = float(network.weight.detach())
    for step in range(20):
        with torch.no_grad():
            network.weight.fill_(step + 1.0)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
    assert float(average.weights[0]) == pytest.approx(expected, rel=1e-6)  # float32


def test_averaged_weights_come_and_go_or_stay():
    network = nn.Linear(2, 2)
    own = [p.detach().clone() for p in network.parameters()]
    average = Average(network, 0.9)
    for weight in average.weights:
        weight.zero_()
    with average.kept() as inside:
        assert inside is network
        assert not network.training
        assert all(not p.any() for p in network.parameters())
    assert network.training
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), own, strict=True))
    assert not average.put().training
    assert all(not p.any() for p in network.parameters())


def test_the_learning_rate_warms_up_and_falls_to_its_floor():
    rates = [learning_rate(k, 100, 2.0, warmup=10) for k in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (k + 1) for k in range(10)])
    assert rates[55] == pytest.approx(2.0 * (0.01 + 0.99 / 2))  # half-way down the cosine
    assert rates[100] == pytest.approx(0.02)
    plain = [learning_rate(k, 8, 1.0, floor=0.0) for k in range(8)]
    assert plain == pytest.approx([(1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)])
