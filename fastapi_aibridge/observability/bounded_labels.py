"""Metrics whose number of label combinations has a bound, whatever clients, providers and tool servers choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

MetricT = TypeVar("MetricT", "Counter", "Histogram")

OTHER = "other"
_LONGEST = 128
"""Characters of a label's value."""


class BoundedLabels(Generic[MetricT]):
    """The children of a metric, held because `labels()` costs more than `inc()`; at most `limit` combinations, and
    further ones with `other` in the place of the labels that somebody outside chooses.

    Field that changes: `_children`, which only grows.
    """

    __slots__ = ("_children", "_chosen", "_limit", "_metric")

    def __init__(self, metric: MetricT, *, chosen: tuple[int, ...], limit: int = 1000) -> None:
        """`chosen` are the places of the labels that somebody outside chooses; the others have few values."""
        self._metric: MetricT = metric
        self._chosen = frozenset(chosen)
        self._limit = limit
        self._children: dict[tuple[str, ...], MetricT] = {}

    def __len__(self) -> int:
        return len(self._children)

    def __call__(self, *labels: str) -> MetricT:
        return self._children.get(labels) or self._added(labels)

    def _added(self, labels: tuple[str, ...]) -> MetricT:
        labels = tuple(label[:_LONGEST] for label in labels)
        if len(self._children) >= self._limit:
            labels = tuple(OTHER if place in self._chosen else label for place, label in enumerate(labels))
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels)
        return child
