from __future__ import annotations

import pytest
import torch
from torch import nn

from t2ialign.engine.ema import Average


def test_the_average_follows_its_formula() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    average = Average([parameter], decay=0.5)
    expected = 1.0
    for step in range(1, 8):
        with torch.no_grad():
            parameter.fill_(float(step))
        average.update()
        decay = 0.0 if step == 1 else min((1 + step - 1) / (10 + step - 1), 0.5)
        expected = decay * expected + (1 - decay) * step
        assert average.tensors()[0].item() == pytest.approx(expected)
    assert average.updates == 7


def test_it_is_applied_for_a_while_and_the_trained_values_come_back() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    average = Average([parameter], decay=0.9)
    average.load([torch.tensor([5.0])], updates=3)
    with pytest.raises(ZeroDivisionError), average.applied():
        1 / (parameter.item() - 5.0)
    assert parameter.item() == 1.0
    assert average.updates == 3
