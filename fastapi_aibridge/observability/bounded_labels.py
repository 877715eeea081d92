"""Metrics with a bounded number of label combinations, whatever values clients, providers and tool servers choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

MetricT = TypeVar("MetricT", "Counter", "Histogram")

OTHER = "other"
_LONGEST = 128
"""Characters of a label's value that are kept."""


class BoundedLabels(Generic[MetricT]):
    """A metric with at most `limit` label combinations; further ones get `other` for each label that outsiders choose.

    The children are cached, since `labels()` costs more than `inc()`. Field that changes: `_children`, which only
    grows.
    """

    __slots__ = ("_children", "_chosen", "_limit", "_metric")

    def __init__(self, metric: MetricT, *, chosen: tuple[int, ...], limit: int = 1000) -> None:
        """`chosen` are the positions of the labels that outsiders choose; the other labels have few values."""
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
