"""The bounds on processor time fail for slow work and hold for quick work, whatever a busy machine adds."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from .processor_time import growth, least


def noisy(seconds: Callable[[int], float], seed: int) -> Callable[[int], float]:
    """Return the times with what another process adds in nine of ten runs: up to twice as much again."""
    dice = random.Random(seed)
    return lambda size: seconds(size) * (1 if dice.random() < 0.1 else 1 + 2 * dice.random())


@pytest.mark.parametrize("seed", range(20))
def test_slow_work_is_told_from_a_busy_machine(seed: int) -> None:
    """Linear work keeps a bound of eight beside others; quadratic work breaks it on a quiet machine."""
    assert growth(noisy(lambda size: size * 1e-6, seed), 1000, 4000, 8) < 8
    assert growth(lambda size: size * size * 1e-9, 1000, 4000, 8) == pytest.approx(16)


def test_one_run_that_keeps_a_bound_is_enough() -> None:
    """The runs end with the first that is quick; work that is never quick shows its least time."""
    times = iter([0.5, 0.01, 9.0])
    assert least(lambda: next(times), 0.02) == 0.01
    assert next(times) == 9.0
    slow = iter([0.5, 0.3] + [0.4] * 30)
    assert least(lambda: next(slow), 0.02) == 0.3
