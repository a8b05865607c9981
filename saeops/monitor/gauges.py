"""The registry's gauges as Prometheus reads them: printed once, or served."""

from collections.abc import Callable, Iterable
from typing import Any

from saeops.errors import SaeopsError, ToolMissing, UsageError
from saeops.stages.gauges import HELP, Sample

Gather = Callable[[], Iterable[Sample]]


class Gauges:
    """Gathers anew whenever Prometheus asks."""

    def __init__(self, gather: Gather) -> None:
        self._gather = gather

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import GaugeMetricFamily

        up = GaugeMetricFamily(
            "saeops_store_up", "1: the store answers; 0: it does not, and there is nothing else"
        )
        try:
            samples, answers = list(self._gather()), 1.0
        except SaeopsError:
            samples, answers = [], 0.0
        up.add_metric([], answers)
        families = []
        for gauge in dict.fromkeys(sample.gauge for sample in samples):
            of_gauge = [sample for sample in samples if sample.gauge == gauge]
            labels = list(of_gauge[0].labels)
            family = GaugeMetricFamily(gauge, HELP[gauge], labels=labels)
            for sample in of_gauge:
                family.add_metric([sample.labels[label] for label in labels], sample.value)
            families.append(family)
        return [up, *families]

    def describe(self) -> Iterable[Any]:
        # A registry asks this when it is made; the store need not answer then.
        return []


def exposition(gather: Gather) -> str:
    """Prometheus' text format.

    Raises:
        ToolMissing: prometheus_client is not installed.
    """
    return str(_client().generate_latest(_registry(gather)).decode())


def serve(gather: Gather, port: int, address: str = "127.0.0.1") -> tuple[Any, Any]:
    """Serve /metrics in a thread; gives the server and the thread.

    Raises:
        ToolMissing: prometheus_client is not installed.
        UsageError: the port cannot be had.
    """
    try:
        server, thread = _client().start_http_server(port, addr=address, registry=_registry(gather))
    except (OSError, OverflowError) as error:
        raise UsageError(f"port {port} cannot be had: {error}", hint="choose another with --serve PORT") from error
    return server, thread


def _registry(gather: Gather) -> Any:
    registry = _client().CollectorRegistry()
    registry.register(Gauges(gather))
    return registry


def _client() -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise ToolMissing("prometheus_client is not installed", hint="pip install 'saeops[monitor]'") from error
    return prometheus_client
