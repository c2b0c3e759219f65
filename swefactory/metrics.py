"""The catalog's numbers for Prometheus. One property: read from SQL when asked for, so nothing is counted twice.

One process serves them for the whole cluster; workers keep no counters of their own. The values are the rows of
`swefactory query gauges`, each named `swefactory_NAME`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from sqlalchemy import Engine

from db import jobs, queries
from db.engine import CatalogError


@dataclass(frozen=True)
class _Gauge:
    help: str
    labels: tuple[str, ...]


_GAUGES = {
    "jobs": _Gauge("Jobs by stage and state.", ("stage", "state")),
    "rejections": _Gauge("Dropped subjects by stage and reason.", ("stage", "reason")),
    "stage_held": _Gauge("1 for a stage of which no job may begin.", ("stage",)),
    "test_runs": _Gauge("Runs of tests by purpose and how they ended.", ("purpose", "status")),
    "test_run_seconds": _Gauge("Seconds in sandboxes by purpose and how the run ended.", ("purpose", "status")),
    "environment_bytes": _Gauge("Bytes of environments that stand.", ("sandbox", "kind")),
    "github_quota_left": _Gauge("What GitHub still answers in this window.", ("credential", "resource")),
    "rollouts": _Gauge("Rollouts by agent and exit status.", ("agent", "exit_status")),
    "model_tokens": _Gauge("Tokens by model and kind.", ("model", "kind")),
    "model_cost_usd": _Gauge("Cost in US dollars by model.", ("model",)),
    "job_age_seconds": _Gauge("Age of the oldest job that is being done, or waits to be.", ("stage", "which")),
}


class CatalogCollector(Collector):
    """Asks the catalog at each scrape; `swefactory_up` is 0, and alone, while it cannot be reached."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        try:
            found = list(_families(self._engine))
        except CatalogError:
            found = []
        yield GaugeMetricFamily("swefactory_up", "1 when the catalog answers.", value=float(bool(found)))
        yield from found


def registry(engine: Engine) -> CollectorRegistry:
    """For prometheus_client's server and text format: this catalog and nothing of this process."""
    made = CollectorRegistry()
    made.register(CatalogCollector(engine))
    return made


def _families(engine: Engine) -> Iterator[Metric]:
    families = {
        name: GaugeMetricFamily(f"swefactory_{name}", gauge.help, labels=gauge.labels)
        for name, gauge in _GAUGES.items()
    }
    _, rows = queries.run(engine, "gauges")
    ages = [("job_age_seconds", stage.value, which, age) for (stage, which), age in jobs.ages(engine).items()]
    for name, *labels, value in [*rows, *ages]:
        used = [str(label) for label in labels[: len(_GAUGES[str(name)].labels)]]
        families[str(name)].add_metric(used, float(str(value)))
    yield from families.values()
