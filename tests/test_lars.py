"""LARS against a plain loop, and after a stop."""

import io

import pytest
import torch
from torch import nn

from unmask.training.lars import LARS

RATES = (0.5, 1.0, 0.25, 2.0, 0.1, 0.7)


def start() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4), (4,), (1, 1, 5), (2, 2))
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    parameters[3].data.zero_()  # no norm to trust
    return parameters


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.randn(p.shape, generator=generator) for p in start()]


def run(optimizer: LARS, parameters: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        for parameter, gradient in zip(parameters, gradients(step), strict=True):
            parameter.grad = gradient
        optimizer.param_groups[0]["lr"] = RATES[step]
        optimizer.step()


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_steps_are_those_of_the_papers_rule(decay: float):
    ours = start()
    run(LARS(ours, momentum=0.9, weight_decay=decay, trust_coefficient=0.001), ours, range(6))
    for index, p in enumerate(start()):
        w, velocity = p.detach().double(), torch.zeros_like(p, dtype=torch.float64)
        for step, rate in enumerate(RATES):
            g = gradients(step)[index].double()
            if w.ndim > 1:
                g = g + decay * w
                size, length = w.square().sum().sqrt(), g.square().sum().sqrt()
                g = g * (0.001 * size / length if size > 0 else 1.0)
            velocity = 0.9 * velocity + g
            w = w - rate * velocity
        torch.testing.assert_close(ours[index].detach().double(), w, rtol=1e-5, atol=1e-6)


def test_a_saved_state_goes_on_bit_for_bit():
    whole = start()
    run(LARS(whole, weight_decay=0.1), whole, range(6))
    stopped = start()
    optimizer = LARS(stopped, weight_decay=0.1)
    run(optimizer, stopped, range(3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = [nn.Parameter(p.detach().clone()) for p in stopped]
    optimizer = LARS(again, weight_decay=0.1)
    optimizer.load_state_dict(torch.load(file, weights_only=True))
    run(optimizer, again, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))


def test_parameters_without_a_gradient_stay():
    parameters = start()
    optimizer = LARS(parameters)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(parameters, start(), strict=True))
