"""What a flow shows in Prefect: tables of metrics, the verdict, a link to the report."""

from collections.abc import Mapping
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from saeops.promotion.verdict import Verdict
from saeops.stats import Interval


def show_metrics(key: str, metrics: Mapping[str, Interval]) -> None:
    """A table with a row a metric."""
    rows = [
        {"metric": name, "value": m.point, "low": m.low, "high": m.high, "n": m.n, "unit": m.unit}
        for name, m in metrics.items()
    ]
    create_table_artifact(rows, key=key, description="Each figure with its interval and sample size")


def show_verdict(verdict: Verdict) -> None:
    """The verdict, gate by gate."""
    lines = [
        f"# Verdict: {verdict.outcome}",
        "",
        f"Bundle `{verdict.bundle[:12]}` beside champion `{(verdict.champion or 'none')[:12]}`.",
        "",
        "| gate | outcome | reason |",
        "| --- | --- | --- |",
        *(
            f"| {gate.requirement} | {gate.outcome}{' (dry run)' * gate.dry_run} | {gate.reason} |"
            for gate in verdict.gates
        ),
    ]
    create_markdown_artifact("\n".join(lines), key="verdict", description="What the judge said, and why")


def show_report(page: Path) -> None:
    """A link that opens in the browser of this machine."""
    create_link_artifact(page.as_uri(), key="report", link_text=page.name, description="The report page")
