"""The verdict in words: what the judge said, gate by gate, and what to type next."""

import shlex
from dataclasses import dataclass

from saeops.diagnostics.metrics import FIDELITY
from saeops.promotion.verdict import GateResult, Verdict
from saeops.report.numbers import plural
from saeops.report.rows import title_of
from saeops.review.outcome import ReviewOutcome

REVIEW_GATES = {"review", "review_acceptance"}
FIDELITY_NAMES = {metric.name for metric in FIDELITY}
SIGNS = {"pass": "✓", "fail": "✕", "inconclusive": "?", "not applicable": "–", "waiting": "…", "unjudged": "…"}


@dataclass(frozen=True)
class Command:
    """Something to type, and why."""

    why: str
    command: str


@dataclass(frozen=True)
class GateView:
    """One gate as a reader sees it."""

    title: str
    asked: str
    outcome: str
    sign: str
    reason: str


@dataclass(frozen=True)
class Ruling:
    """The verdict as a reader sees it."""

    outcome: str
    """`pass`, `fail`, `inconclusive`, `waiting` (for reviews) or `unjudged`."""
    sign: str
    title: str
    sentence: str
    rule: str
    gates: tuple[GateView, ...]
    steps: tuple[Command, ...]
    """What to type next; three at most."""


@dataclass(frozen=True)
class Size:
    """How large the build was, so that a next one can be asked for."""

    train_tokens: int
    expansion_factor: float
    harvest_tokens: int
    fidelity_documents: int


def ruling(verdict: Verdict | None, review: ReviewOutcome, *, name: str, size: Size) -> Ruling:
    """Say the verdict in words, with what to type next."""
    gates = tuple(gate_view(gate) for gate in verdict.gates) if verdict else ()
    outcome = _outcome(verdict, review)
    title, sentence = _WORDS[outcome]
    return Ruling(
        outcome=outcome,
        sign=SIGNS[outcome],
        title=title,
        sentence=_counted(sentence, verdict, review),
        rule=_rule(verdict),
        gates=gates,
        steps=_steps(outcome, verdict, name=name, size=size),
    )


def gate_view(gate: GateResult) -> GateView:
    """One gate in words."""
    words = gate.requirement.removeprefix(gate.metric).strip()
    asked = f"{words} (dry run)" if gate.dry_run else words
    return GateView(title_of(gate.metric), asked, gate.outcome.replace(" ", "-"), SIGNS[gate.outcome], gate.reason)


def _outcome(verdict: Verdict | None, review: ReviewOutcome) -> str:
    if verdict is None:
        return "unjudged"
    still_open = {gate.metric for gate in verdict.counted if gate.outcome == "inconclusive"}
    waits = verdict.outcome == "inconclusive" and not review.complete
    return "waiting" if waits and still_open <= REVIEW_GATES else verdict.outcome


_WORDS = {
    "pass": ("Pass", "{passed} hold, each by the bound that is hardest on the candidate."),
    "fail": ("Fail", "{failed} {do} not hold: {which}. The champion, if there is one, stays."),
    "inconclusive": ("Inconclusive", "Nothing fails, but the data cannot tell yet: {open}."),
    "waiting": ("Waiting for review", "Every measured gate holds; {pending} still {wait} for a person."),
    "unjudged": ("Not judged yet", "The bundle is built and sealed; nobody has asked the judge."),
}


def _counted(sentence: str, verdict: Verdict | None, review: ReviewOutcome) -> str:
    gates = verdict.counted if verdict else ()
    titles = {
        outcome: list(dict.fromkeys(title_of(gate.metric) for gate in gates if gate.outcome == outcome))
        for outcome in ("pass", "fail", "inconclusive")
    }
    pending = len(review.pending)
    failed = sum(gate.outcome == "fail" for gate in gates)
    return sentence.format(
        passed=plural(sum(gate.outcome == "pass" for gate in gates), "gate"),
        failed=plural(failed, "gate"),
        do="does" if failed == 1 else "do",
        which=", ".join(titles["fail"]),
        open=", ".join(titles["inconclusive"]),
        pending=plural(pending, "label"),
        wait="waits" if pending == 1 else "wait",
    )


def _rule(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    beside = (
        "This would be the first champion, so nothing is compared with one."
        if verdict.champion is None
        else f"Compared with the champion {verdict.champion[:12]}."
    )
    return f"Bounds are judged, not points; a missing figure fails. {beside}"


def _steps(outcome: str, verdict: Verdict | None, *, name: str, size: Size) -> tuple[Command, ...]:
    status = Command("See who is champion, and since when", f"saeops status {shlex.quote(name)}")
    judge = Command("Judge it and, if it passes, make it champion", "python -m flows promote")
    if outcome == "pass":
        return judge, status, Command("Compare runs in MLflow", "make ui")
    if outcome == "waiting":
        return (
            Command("List the labels that wait, the weightiest first", "saeops review queue"),
            Command("Walk through them: accept, edit or reject", "saeops review decide"),
            Command("Then go on from here", judge.command),
        )
    if outcome == "unjudged":
        return judge, Command("List the labels that wait for a person", "saeops review queue"), status
    culprits = [gate.metric for gate in verdict.counted if gate.outcome == outcome] if verdict else []
    return _again(culprits, outcome, size), Command("Judge the new bundle", judge.command), status


def _again(culprits: list[str], outcome: str, size: Size) -> Command:
    if set(culprits) <= REVIEW_GATES:
        return Command("See what was decided, and why", "saeops review queue")
    if outcome == "inconclusive" and FIDELITY_NAMES.issuperset(set(culprits) - REVIEW_GATES):
        why, change = "Measure on more documents", f"diagnose.fidelity_documents={2 * size.fidelity_documents}"
    elif outcome == "inconclusive":
        why, change = "Harvest and measure more", f"harvest.tokens={2 * size.harvest_tokens}"
    elif "dead_fraction" in culprits:
        why, change = "Build a narrower dictionary", f"train.expansion_factor={size.expansion_factor / 2:g}"
    elif {"l0", "l0_p95"} & set(culprits):
        why, change = "Ask for fewer latents a token", "train.k=16"
    else:
        why, change = "Train longer", f"train.tokens={2 * size.train_tokens}"
    return Command(f"{why}; finished stages are kept", f'make run ARGS="--set {change}"')
