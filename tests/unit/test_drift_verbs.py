"""What people and Prometheus see of a name whose model changes: status, watch, alerts, metrics."""

import datetime
import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from saeops.adapters.stores import LocalStore, MemoryStore
from saeops.drift.policy.machine import STATES
from saeops.errors import StoreUnreachable, UsageError
from saeops.monitor.gauges import Gauges, exposition, serve
from saeops.params import load_params
from saeops.ports import ObjectStore
from saeops.promotion import keys
from saeops.promotion.verdict import GateResult
from saeops.services import Services
from saeops.settings import Settings
from saeops.stages import gauges, retraining
from saeops.stages.gauges import HELP, Sample
from saeops.stats import Interval
from tests.bundles import NAME, NOW, tiny_bundle, tiny_params, verdict_on
from tests.changing import POLICY, audit_of, seen, wanted
from tests.drifting import promoted, recorded
from tests.endpoint import Reply, endpoint

NEW = "n" * 64
DOC = Path(__file__).parents[2] / "docs" / "retraining.md"


def minutes(count: float) -> datetime.datetime:
    return NOW + datetime.timedelta(minutes=count)


def gathered(
    store: ObjectStore, *names: str, at: float = 60, backlog: dict[str, int] | None = None
) -> dict[Any, float]:
    samples = gauges.gather(store, names or [NAME], POLICY, minutes(at), backlog=backlog or {})
    return {(s.gauge, *(v for k, v in s.labels.items() if k != "dictionary")): s.value for s in samples}


# ── gauges ──────────────────────────────────────────────────────────────────


def test_every_gauge_is_written_down_and_every_written_one_is_there() -> None:
    written = {line.split("`")[1] for line in DOC.read_text().splitlines() if line.startswith("| `saeops_")}
    assert written == {*HELP, "saeops_store_up"}


def test_gauges_tell_the_champions_age_its_audit_and_its_drift(tmp_path: Path) -> None:
    store = MemoryStore()
    v1 = promoted(store, tmp_path, "a")
    recorded(store, audit_of(v1, NEW, "warn", minutes(10)))
    found = gathered(store, at=60, backlog={NAME: 7})
    assert found["saeops_registry_readable",] == 1
    assert found["saeops_champion_age_seconds",] == 3600
    assert found["saeops_last_audit_age_seconds",] == 3000
    assert [found["saeops_last_audit_outcome", each] for each in ("ok", "warn", "drift")] == [0, 1, 0]
    shares = {each: found["saeops_drift_ratio", each] for each in ("kept", "weakened", "changed", "lost")}
    assert shares == {"kept": 0.6, "weakened": 0.1, "changed": 0.2, "lost": 0.1}
    assert {each for each in STATES if found["saeops_state", each] == 1} == {"healthy"}
    assert found["saeops_state_age_seconds",] == 3000
    assert found["saeops_review_backlog",] == 7
    assert found["saeops_open_intents",] == 0


def test_what_was_never_measured_has_no_gauge(tmp_path: Path) -> None:
    store = MemoryStore()
    promoted(store, tmp_path, "a")
    there = {key[0] for key in gathered(store)}
    assert there.isdisjoint({"saeops_last_audit_age_seconds", "saeops_drift_ratio", "saeops_review_backlog"})


def test_a_latent_that_fired_too_seldom_to_tell_is_in_no_share(tmp_path: Path) -> None:
    store = MemoryStore()
    v1 = promoted(store, tmp_path, "a")
    record = audit_of(v1, NEW, "ok", minutes(10))
    recorded(store, record.model_copy(update={"latents": record.latents.model_copy(update={"too_few": 90})}))
    assert gathered(store)["saeops_drift_ratio", "kept"] == 0.6


def test_gate_margins_are_those_of_the_last_verdict(tmp_path: Path) -> None:
    store = MemoryStore()
    v1 = promoted(store, tmp_path, "a")
    assert not [key for key in gathered(store) if key[0] == "saeops_gate_margin"]
    bundle = tiny_bundle(tmp_path / "candidate", seed=9)
    judged = GateResult(
        *("explained_variance", "explained_variance at least 0.7", Interval(0.65, 0.6, 0.7, 40, "documents")),
        *(0.6, "fail", "its lower bound is 0.6", "at least", 0.7),
    )
    verdict = verdict_on(bundle, v1, "fail")
    verdict = type(verdict)(**{**vars(verdict), "gates": (judged,)})
    store.put(keys.verdict_key(NAME, verdict.digest), verdict.to_bytes())
    run = retraining.acquire(store, wanted(), POLICY, minutes(1)).run
    retraining.finish(store, run, minutes(2), candidate=bundle.digest, verdict=verdict)
    margin = gathered(store)["saeops_gate_margin", "explained_variance at least 0.7", bundle.digest]
    assert margin == pytest.approx(-0.1)


def test_a_name_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    store = MemoryStore()
    other = "other/blocks.1.resid_post"
    promoted(store, tmp_path, "a")
    promoted(store, tmp_path, "b", name=other)
    store.put(keys.champion_key(NAME), b"{}")
    samples = gauges.gather(store, [NAME, other], POLICY, minutes(1), backlog={})
    assert [s.value for s in samples if s.gauge == "saeops_registry_readable"] == [0, 1]
    assert {s.labels["dictionary"] for s in samples if s.gauge == "saeops_state"} == {other}


def test_prometheus_reads_what_is_printed(tmp_path: Path) -> None:
    store = MemoryStore()
    recorded(store, audit_of(promoted(store, tmp_path, "a"), NEW, "drift", minutes(10)))
    samples = gauges.gather(store, [NAME], POLICY, minutes(60), backlog={})
    families = list(text_string_to_metric_families(exposition(lambda: samples)))
    assert {family.type for family in families} == {"gauge"}
    read = {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}
    for sample in samples:
        assert read[sample.gauge, *sorted(sample.labels.items())] == sample.value
    assert read["saeops_store_up",] == 1


def test_a_store_that_is_away_is_told_of_and_does_not_end_the_exporter() -> None:
    def away() -> list[Sample]:
        raise StoreUnreachable("gone for lunch")

    (up,) = Gauges(away).collect()
    assert [sample.value for sample in up.samples] == [0]


def test_served_gauges_are_gathered_at_each_scrape() -> None:
    asked: list[int] = []

    def gather() -> list[Sample]:
        asked.append(len(asked))
        return [Sample("saeops_champion_age_seconds", {"dictionary": NAME}, float(len(asked)))]

    server, thread = serve(gather, 0)
    try:
        address = f"http://127.0.0.1:{server.server_port}/metrics"
        pages = [urllib.request.urlopen(address, timeout=30).read().decode() for _ in range(2)]
        with pytest.raises(UsageError, match="cannot be had"):
            serve(gather, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert [page.splitlines()[-1].rpartition(" ")[2] for page in pages] == ["1.0", "2.0"]


# ── verbs ───────────────────────────────────────────────────────────────────


class Checkout:
    """A checkout with a champion that drifts."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.store = LocalStore(root / "var" / "registry")
        self.champion = promoted(self.store, root, "a")
        monkeypatch.setenv("SAEOPS_TRACKING", "none")
        monkeypatch.delenv("SAEOPS_ALERTS_WEBHOOK", raising=False)
        self.write()

    def write(self, **retrain: Any) -> None:
        values = tiny_params().model_dump(mode="json") | {"retrain": retrain}
        (self.root / "params.yaml").write_text(yaml.safe_dump(values))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "saeops.cli", *arguments, "--root", str(self.root)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return Checkout(tmp_path, monkeypatch)


def test_status_shows_the_state_with_since_why_and_what_to_do(checkout: Checkout) -> None:
    recorded(checkout.store, audit_of(checkout.champion, NEW, "drift", minutes(90)))
    said = checkout.run("status", NAME)
    assert said.returncode == 0, said.stderr
    facts = {line.split()[0]: line.split(maxsplit=1)[1] for line in said.stdout.splitlines()[1:]}
    assert facts["champion"] == checkout.champion
    assert facts["state"].startswith("drifting, for ")
    assert facts["state"].endswith("since 2026-03-01T13:30:00+00:00")
    assert "it says drift" in facts["why"]
    assert "retrain" in facts["next"]
    assert facts["before"] == "promoted 1 h"
    (told,) = json.loads(checkout.run("status", NAME, "--json").stdout)
    assert told["standing"]["state"] == "drifting"
    assert [spell["state"] for spell in told["standing"]["spells"]] == ["promoted", "drifting"]


def test_status_takes_the_policy_from_params_and_the_default_one_where_there_are_none(checkout: Checkout) -> None:
    settings = Settings.from_environment(checkout.root)
    assert Services(settings).situation(NAME).finding.state == "audit due"
    checkout.write(audit_every_days=None)
    assert Services(settings).situation(NAME).finding.state == "promoted"
    (checkout.root / "params.yaml").unlink()
    assert Services(settings).situation(NAME).finding.state == "audit due"


def test_a_damaged_audit_hides_no_champion(checkout: Checkout) -> None:
    recorded(checkout.store, audit_of(checkout.champion, NEW, "drift", minutes(90)))
    (key,) = checkout.store.list(keys.audits_prefix(NAME))
    checkout.store.put(key, b'{"format":1}\n')
    said = checkout.run("status", NAME)
    assert said.returncode == 0
    assert checkout.champion in said.stdout
    assert "state       not known" in said.stdout


def test_status_of_a_drifting_name_imports_nothing_heavy(checkout: Checkout) -> None:
    recorded(checkout.store, audit_of(checkout.champion, NEW, "drift", minutes(90)))
    heavy = ["torch", "pandas", "transformers", "mlflow", "matplotlib", "scipy", "prefect", "httpx"]
    code = (
        "import sys; from saeops.cli import app\n"
        f"app(['status', '--root', {str(checkout.root)!r}], standalone_mode=False)\n"
        f"print([module for module in {heavy} if module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "drifting" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_watch_takes_a_copied_model_once_it_rests_and_reports_it_once(
    checkout: Checkout, tiny_model_folder: Path
) -> None:
    checkout.write(sources=[{"kind": "folder", "path": "incoming"}])
    services, params = Services(Settings.from_environment(checkout.root)), load_params(checkout.root)
    events: list[str] = []

    def look() -> str:
        (found,) = services.watch(params, emit=lambda new: events.append(new.id))
        return type(found).__name__

    assert look() == "NotWhole"
    shutil.copytree(tiny_model_folder, checkout.root / "incoming")
    assert [look() for _ in range(4)] == ["NotWhole", "NewModel", "Known", "Known"]
    assert len(events) == 1
    assert services.situation(NAME).finding.state == "audit due"
    said = checkout.run("watch")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("nothing new: model ")


def test_one_source_that_does_not_answer_keeps_no_other_from_being_looked_at(
    checkout: Checkout, tiny_model_folder: Path
) -> None:
    hub = {"kind": "hub", "id": "owner/name"}
    checkout.write(sources=[hub, {"kind": "folder", "path": str(tiny_model_folder)}])
    for _ in range(2):
        said = checkout.run("watch")
        assert said.returncode == 2
        assert "hub:owner/name@main" in said.stderr
    assert len(checkout.store.list(keys.models_prefix(NAME))) == 1


def test_watch_without_sources_says_where_to_name_them(checkout: Checkout) -> None:
    assert "retrain.sources is empty" in checkout.run("watch").stdout


def test_alerts_posts_once_and_says_what_was_not_taken(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(checkout.store, audit_of(checkout.champion, NEW, "drift", minutes(90)))
    answers = iter([403, 200])
    with endpoint(lambda _, __: Reply(next(answers))) as server:
        monkeypatch.setenv("SAEOPS_ALERTS_WEBHOOK", f"{server.url}/T0KEN")
        checkout.write(audit_every_days=None)
        refused = checkout.run("alerts")
        assert refused.returncode == 6
        assert "webhook" in refused.stderr
        assert "T0KEN" not in refused.stderr + refused.stdout
        assert "told: webhook" in checkout.run("alerts").stdout
        assert len(json.loads(checkout.run("alerts", "--json").stdout)) == 1
    assert [request["kind"] for request in server.requests] == ["drift", "drift"]


def test_metrics_prints_names_that_can_be_read_and_tells_of_others(checkout: Checkout) -> None:
    said = checkout.run("metrics", NAME, "no/such")
    assert said.returncode == 0, said.stderr
    assert f'saeops_state{{dictionary="{NAME}",state="audit due"}} 1.0' in said.stdout
    assert 'saeops_registry_readable{dictionary="no/such"} 0.0' in said.stdout


def test_a_new_model_makes_an_audit_due_at_once(checkout: Checkout) -> None:
    checkout.write(audit_every_days=None)
    checkout.store.put(keys.model_key(NAME, NEW), seen(NEW, minutes(5)).to_bytes())
    finding = Services(Settings.from_environment(checkout.root)).situation(NAME).finding
    assert (finding.state, finding.next) == ("audit due", f"saeops audit {NAME} --model models/{NEW[:4]}")


def test_the_policy_is_no_part_of_how_a_bundle_was_made(tmp_path: Path) -> None:
    """So that an edit of it loses no review, which is bound to the bundle's digest."""
    plain = tiny_bundle(tmp_path / "a", seed=1)
    other = tiny_params(retrain={"audit_every_days": 7, "rollback_on_drift": True})
    assert tiny_bundle(tmp_path / "b", seed=1, params=other).digest == plain.digest
