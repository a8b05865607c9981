"""Alerts: one an opening and channel, however often somebody looks, whatever fails or dies."""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from saeops.adapters.stores import LocalStore, MemoryStore
from saeops.adapters.webhook import TRIES, Webhook
from saeops.drift.policy.alerts import Alarm, alarms, changed
from saeops.drift.policy.machine import situation
from saeops.drift.policy.records import Incident, Retraining
from saeops.errors import AlertUndelivered
from saeops.ports import ObjectStore
from saeops.stages import alerts, retraining
from saeops.stages.alerts import CLAIM_S, Alerted, Channel
from saeops.stages.drift_records import put_model, read_incidents
from tests.bundles import MODEL, NAME, NOW, author
from tests.changing import POLICY, audit_of, seen, wanted
from tests.drifting import promoted, recorded
from tests.endpoint import Reply, endpoint
from tests.forks import FORK, forked
from tests.killing import Killed


def after(**span: float) -> datetime.datetime:
    return NOW + datetime.timedelta(**span)


def incident(kind: str = "drift", episode: int = 1) -> Incident:
    return Incident(
        name=NAME,
        id=f"{kind}-0123456789ab",
        kind=kind,  # type: ignore[arg-type]
        subject="b on m",
        message="the champion drifts",
        hint="saeops status",
        opened=NOW.isoformat(),
        episode=episode,
    )


# ── what people should know ─────────────────────────────────────────────────


class World:
    """A store with a champion, and somebody who looks at it."""

    def __init__(self, store: ObjectStore, work: Path) -> None:
        self.store = store
        self.champion = promoted(store, work, "a")
        self.told: list[str] = []

    def look(self, minutes: int = 0, operation: str = "op", **channels: Channel) -> Alerted:
        told = channels or {"told": lambda incident: self.told.append(incident.event)}
        who = author(f"{operation}-{minutes}", minutes=minutes)
        return alerts.run(NAME, store=self.store, policy=POLICY, author=who, channels=told)

    def audit(self, outcome: str, minutes: int, model: str = "n" * 64) -> None:
        recorded(self.store, audit_of(self.champion, model, outcome, after(minutes=minutes)))  # type: ignore[arg-type]

    def kinds(self, **span: float) -> list[str]:
        from saeops.stages.state import where

        now = after(**span)
        return [alarm.kind for alarm in alarms(where(self.store, NAME, POLICY, now), POLICY, now)]

    def retrains(self, **span: float) -> Retraining:
        taking = retraining.acquire(self.store, wanted(), POLICY, after(**span))
        return taking.run


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(MemoryStore(), tmp_path)


def test_a_healthy_name_alerts_of_nothing(world: World) -> None:
    world.audit("ok", 1)
    assert world.kinds(days=1) == []
    assert world.look(2) == Alerted((), (), (), ())


def test_drift_is_an_alarm_until_an_audit_says_otherwise(world: World) -> None:
    world.audit("drift", 1)
    assert world.kinds(minutes=2) == ["drift"]
    world.audit("warn", 3)
    assert world.kinds(minutes=4) == []


def test_an_audit_is_overdue_some_days_after_it_fell_due(world: World) -> None:
    every, grace = POLICY.audit_every_days or 0, POLICY.overdue_after_days
    assert world.kinds(days=every + grace - 0.01) == []
    assert world.kinds(days=every + grace) == ["overdue audit"]
    put_model(world.store, seen("n" * 64, after(days=1)))
    assert world.kinds(days=1 + grace - 0.01) == []
    assert world.kinds(days=1 + grace) == ["overdue audit"]


def test_a_stopped_heart_and_a_run_that_does_not_get_on_are_told_apart(world: World) -> None:
    run = world.retrains()
    assert world.kinds(minutes=POLICY.lease_minutes - 0.1) == []
    assert world.kinds(minutes=POLICY.lease_minutes) == ["missed heartbeat"]
    retraining.heartbeat(world.store, run, after(hours=POLICY.stuck_after_hours), "train")
    retraining.heartbeat(world.store, run, after(hours=2 * POLICY.stuck_after_hours))
    assert world.kinds(hours=2 * POLICY.stuck_after_hours) == ["stuck run"]
    retraining.heartbeat(world.store, run, after(hours=2 * POLICY.stuck_after_hours), "label")
    assert world.kinds(hours=2 * POLICY.stuck_after_hours) == []


def test_a_retrained_candidate_that_the_judge_refused_is_an_alarm(world: World) -> None:
    from tests.bundles import verdict_on

    class Built:
        digest = "c" * 64

    verdict = verdict_on(Built(), world.champion, "fail")  # type: ignore[arg-type]
    retraining.finish(world.store, world.retrains(), after(minutes=1), candidate=Built.digest, verdict=verdict)
    assert world.kinds(minutes=2) == ["failed gate"]


# ── once an incident ────────────────────────────────────────────────────────


def test_an_incident_is_told_once_to_each_channel(world: World) -> None:
    world.audit("drift", 1)
    first = world.look(2)
    assert [each.kind for each in first.opened] == ["drift"]
    assert len(first.sent) == 1
    for minutes in (3, 4, 5):
        again = world.look(minutes)
        assert (again.opened, again.sent) == ((), ())
    late: list[str] = []
    world.look(6, told=lambda i: world.told.append(i.event), late=lambda i: late.append(i.event))
    assert world.told == late == [first.opened[0].event]


def test_an_incident_that_resolves_and_opens_again_is_told_again(world: World) -> None:
    world.audit("drift", 1)
    world.look(2)
    world.audit("ok", 3)
    assert [each.kind for each in world.look(4).resolved] == ["drift"]
    assert world.look(5).resolved == ()
    world.audit("drift", 6)
    assert [each.episode for each in world.look(7).opened] == [2]
    world.look(8)
    assert [event.rpartition("-")[2] for event in world.told] == ["1", "2"]


def test_drift_on_another_model_is_another_incident(world: World) -> None:
    world.audit("drift", 1)
    world.look(2)
    world.audit("drift", 3, model="o" * 64)
    done = world.look(4)
    assert len(done.opened) == len(done.resolved) == 1
    assert len(set(world.told)) == 2


def test_what_one_channel_does_not_take_is_tried_again_and_the_others_hear_once(world: World) -> None:
    down = True

    def webhook(incident: Incident) -> None:
        if down:
            raise AlertUndelivered("it is down")
        world.told.append(f"webhook {incident.event}")

    def other(incident: Incident) -> None:
        world.told.append(f"other {incident.event}")

    world.audit("drift", 1)
    first = world.look(2, webhook=webhook, other=other)
    assert [(channel, why) for channel, _, why in first.undelivered] == [("webhook", "it is down")]
    down = False
    assert world.look(3, webhook=webhook, other=other).undelivered == ()
    world.look(4, webhook=webhook, other=other)
    assert [said.split()[0] for said in world.told] == ["other", "webhook"]


def test_killed_after_sending_it_is_sent_again_under_the_same_id_once_the_claim_ran_out(world: World) -> None:
    def dies(incident: Incident) -> None:
        world.told.append(incident.event)
        raise Killed

    world.audit("drift", 1)
    with pytest.raises(Killed):
        world.look(2, told=dies)
    world.look(3, told=dies)
    assert len(world.told) == 1
    world.look(2 + int(CLAIM_S // 60))
    world.look(9)
    assert len(world.told) == 2
    assert len(set(world.told)) == 1


def test_what_resolved_before_anybody_could_be_told_is_not_told(world: World) -> None:
    def fails(_: Incident) -> None:
        raise AlertUndelivered("it is down")

    world.audit("drift", 1)
    world.look(2, told=fails)
    world.audit("ok", 3)
    world.look(4)
    assert world.told == []
    (found,) = read_incidents(world.store, NAME).values()
    assert not found.open


def test_a_round_that_read_old_news_neither_reopens_nor_repeats(world: World) -> None:
    world.audit("drift", 1)
    world.look(2)
    before = read_incidents(world.store, NAME)
    holding = [Alarm("drift", next(iter(before.values())).subject, "", "")]
    assert changed(before, holding, name=NAME, now=NOW) == ()
    assert [i.resolved for i in changed(before, [], name=NAME, now=NOW)] == [NOW.isoformat()]


def look_from_a_fork(folder: Path, who: str, told: Path) -> None:
    def append(incident: Incident) -> None:
        with told.open("a") as file:
            file.write(f"{incident.event}\n")

    me = author(who, minutes=2)
    alerts.run(NAME, store=LocalStore(folder), policy=POLICY, author=me, channels={"told": append})


def test_of_many_that_look_at_once_one_tells(tmp_path: Path) -> None:
    world = World(LocalStore(tmp_path / "store"), tmp_path)
    world.audit("drift", 1)
    told = tmp_path / "told"
    start = FORK.Barrier(6)

    def work(who: str) -> None:
        start.wait(60)
        look_from_a_fork(tmp_path / "store", who, told)

    lookers = [forked(work, f"looker-{i}") for i in range(6)]
    for looker in lookers:
        looker.join(60)
    assert [looker.exitcode for looker in lookers] == [0] * 6
    assert len(told.read_text().splitlines()) == 1


# ── the webhook ─────────────────────────────────────────────────────────────


def sends(reply: Callable[[int], Reply]) -> tuple[list[dict[str, object]], list[float], str]:
    """What a real server got, how long was waited, and the error in words."""
    waits: list[float] = []
    error = ""
    with endpoint(lambda _, before: reply(before)) as server:
        webhook = Webhook(SecretStr(f"{server.url}/services/T0KEN"), sleep=waits.append)
        try:
            webhook(incident())
        except AlertUndelivered as raised:
            error = str(raised)
    return server.requests, waits, error


def test_the_webhook_gets_the_incident_as_json() -> None:
    (got,), waits, error = sends(lambda _: Reply(204))
    assert (waits, error) == ([], "")
    assert got["path"] == "/v1/services/T0KEN"
    assert (got["event"], got["kind"], got["name"]) == ("saeops.incident", "drift", NAME)
    assert got["id"] == incident().event
    assert "the champion drifts" in str(got["text"])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_webhook_that_fails_and_then_works_takes_it(status: int) -> None:
    got, waits, error = sends(lambda before: Reply(status if before < 2 else 200))
    assert len(got) == 3
    assert len({str(each["id"]) for each in got}) == 1
    assert len(waits) == 2
    assert error == ""


def test_a_webhook_that_stays_down_is_given_up_for_this_round() -> None:
    got, _, error = sends(lambda _: Reply(503))
    assert len(got) == TRIES
    assert f"answers 503, {TRIES} times" in error


@pytest.mark.parametrize("status", [301, 400, 403, 404])
def test_a_refusal_is_not_tried_again(status: int) -> None:
    got, _, error = sends(lambda _: Reply(status))
    assert len(got) == 1
    assert f"answers {status}" in error


def test_the_webhooks_address_is_in_no_error_and_no_repr() -> None:
    _, _, error = sends(lambda _: Reply(403))
    nobody = Webhook(SecretStr("http://127.0.0.1:9/services/T0KEN"), sleep=lambda _: None)
    with pytest.raises(AlertUndelivered) as caught:
        nobody(incident())
    for text in (error, str(caught.value), repr(nobody), repr(caught.value.__cause__)):
        assert "T0KEN" not in text
    assert "127.0.0.1" in error


@pytest.mark.parametrize("address", ["", "no address", "ftp://host/x", "http://[::"])
def test_an_address_that_is_none_is_refused_without_being_shown(address: str) -> None:
    with pytest.raises(AlertUndelivered):
        Webhook(SecretStr(address), sleep=lambda _: None)(incident())


def test_an_alert_reaches_a_webhook_that_failed_at_first_once(world: World) -> None:
    with endpoint(lambda _, before: Reply(500 if before < TRIES else 200)) as server:
        webhook = Webhook(SecretStr(server.url), sleep=lambda _: None)
        world.audit("drift", 1)
        assert len(world.look(2, webhook=webhook).undelivered) == 1
        assert len(world.look(3, webhook=webhook).sent) == 1
        world.look(4, webhook=webhook)
    assert len(server.requests) == TRIES + 1


def test_incidents_and_state_are_read_from_the_same_records(world: World) -> None:
    from saeops.stages.state import facts

    world.audit("drift", 1)
    found = situation(facts(world.store, NAME), POLICY, after(minutes=2))
    assert found.finding.state == "drifting"
    assert found.facts.built_on == {world.champion: MODEL}
    assert "it says drift" in found.finding.why
