"""The cost of a test's requests."""

from __future__ import annotations

from ..recorder import InterceptionRecord
from ..recorder.memory import MemoryRecorder


class Spent:
    """Adds up the costs in a recorder. Running requests have cost nothing yet."""

    def __init__(self, recorder: MemoryRecorder) -> None:
        self._recorder = recorder

    @property
    def usd(self) -> float:
        """US dollars, exact to six decimals. Raises `AssertionError` if a model has no price: set one in
        `AIBRIDGE_PRICES`, or install the extra `prices`.
        """
        costs = [_cost(record) for record in self._recorder.records if record.ending is not None]
        return sum(costs) / 1_000_000

    def at_most(self, usd: float) -> None:
        """Raise `AssertionError` if more was spent; its text lists the most expensive requests."""
        if self.usd > usd:
            dearest = sorted(self._recorder.records, key=_amount, reverse=True)[:5]
            lines = [f"  {_amount(one) / 1_000_000:.6f} {one.interception.model}" for one in dearest]
            raise AssertionError("\n".join([f"USD {self.usd:.6f} were spent, more than {usd:.6f}:", *lines]))

    def exactly(self, usd: float) -> None:
        """Raise `AssertionError` if the amount differs by a micro-dollar or more."""
        if round(self.usd * 1_000_000) != round(usd * 1_000_000):
            raise AssertionError(f"USD {self.usd:.6f} were spent, not {usd:.6f}")


def _amount(record: InterceptionRecord) -> int:
    return 0 if record.ending is None else record.ending.cost or 0


def _cost(record: InterceptionRecord) -> int:
    assert record.ending is not None  # noqa: S101
    if record.ending.cost is None and record.facts.token_usages:
        raise AssertionError(f"model {record.interception.model!r} has no price")
    return record.ending.cost or 0
