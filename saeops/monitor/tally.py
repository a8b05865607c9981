"""Counts of what a monitor saw, and Prometheus' view of them.

# L trusted latent, N firing
"""

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from saeops.dictionary.handle import Feature
from saeops.errors import ToolMissing, UsageError

BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
"""Upper bounds of activations over the largest that the catalog saw."""
SKIPPED = ("policy", "non_finite", "embeddings")


class Tally:
    """Running counts, taken over by whoever asks."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = list(features)
        self.lock = threading.Lock()
        self.tokens = 0
        self.skipped = dict.fromkeys(SKIPPED, 0)
        self.firings_L = np.zeros(len(features), dtype=np.int64)
        self.activation_L = np.zeros(len(features))
        self.buckets = np.zeros(len(BUCKETS) + 1, dtype=np.int64)
        self.relative = 0.0
        self.seconds = 0.0
        self._largest_L = np.array([max(each.max_activation, 1e-12) for each in features])

    def add(self, index_N: np.ndarray, activation_N: np.ndarray) -> None:
        """Count firings: index among the features, and activation."""
        relative_N = activation_N / self._largest_L[index_N]
        buckets = np.bincount(np.searchsorted(BUCKETS, relative_N), minlength=len(self.buckets))
        with self.lock:
            self.firings_L += np.bincount(index_N, minlength=len(self.firings_L))
            self.activation_L += np.bincount(index_N, weights=activation_N, minlength=len(self.activation_L))
            self.buckets += buckets
            self.relative += float(relative_N.sum())


class Collector:
    """A tally as Prometheus collects it. One registry holds one monitor."""

    def __init__(self, tally: Tally, name: str, digest: str) -> None:
        self._tally, self._labels = tally, [name, digest]

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        tally, names = self._tally, ["dictionary", "digest"]
        with tally.lock:
            tokens = CounterMetricFamily("saeops_tokens", "Tokens that the policy counts", labels=names)
            tokens.add_metric(self._labels, tally.tokens)
            skipped = CounterMetricFamily("saeops_tokens_skipped", "Tokens left out", labels=[*names, "reason"])
            for reason, count in tally.skipped.items():
                skipped.add_metric([*self._labels, reason], count)
            spent = CounterMetricFamily("saeops_monitor_seconds", "Wall time spent in the monitor", labels=names)
            spent.add_metric(self._labels, tally.seconds)
            each = [*names, "latent", "label"]
            firings = CounterMetricFamily("saeops_feature_firings", "Tokens a feature fired on", labels=each)
            amounts = CounterMetricFamily("saeops_feature_activation", "Sum of its activations", labels=each)
            for feature, fired, amount in zip(tally.features, tally.firings_L, tally.activation_L, strict=True):
                labels = [*self._labels, str(feature.latent), feature.label]
                firings.add_metric(labels, float(fired))
                amounts.add_metric(labels, float(amount))
            relative = HistogramMetricFamily(
                "saeops_relative_activation", "Activation over the catalog's largest, all features", labels=names
            )
            bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
            counts = tally.buckets.cumsum().astype(float)
            relative.add_metric(self._labels, list(zip(bounds, counts, strict=True)), tally.relative)
        return [tokens, skipped, spent, firings, amounts, relative]

    def describe(self) -> Iterable[Any]:
        # A registry asks this to refuse a second one under the same names.
        return self.collect()


def register(collector: Collector, registry: Any) -> None:
    """Let a Prometheus registry collect it.

    Raises:
        ToolMissing: prometheus_client is not installed.
        UsageError: the registry holds a monitor already.
    """
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise ToolMissing("prometheus_client is not installed", hint="pip install 'saeops[monitor]'") from error
    try:
        registry.register(collector)
    except ValueError as error:
        raise UsageError(
            f"this Prometheus registry holds a monitor already: {error}",
            hint="detach the first, or give each a CollectorRegistry of its own",
        ) from error
