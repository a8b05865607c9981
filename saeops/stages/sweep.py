"""Sweep: several SAEs over one pass of the activations, each as `train` leaves one; then compared, held out."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saeops.activations.reader import ActivationSet
from saeops.activations.sites import Sites
from saeops.diagnostics.figures import save_png
from saeops.diagnostics.measure import Held, measure, measured_metrics
from saeops.digests import digest_json
from saeops.errors import ParamsInvalid
from saeops.files import publish_folder
from saeops.params import Params, SweepMember, check_against_model, sweep_members
from saeops.ports import Watch
from saeops.refs import Ref, Workspace
from saeops.sae.canonical import Sae
from saeops.sealed import kept, open_sealed, seal
from saeops.stages import train, training
from saeops.stats import Bootstrap, Interval
from saeops.tables import write_table
from saeops.training.checkpoint import CheckpointFolder
from saeops.training.documents import trained_documents
from saeops.training.memory import Memory, in_gb
from saeops.training.schedule import Schedule
from saeops.training.state import TrainState, begin
from saeops.training.sweep import SweepTable, sweep_figure, sweep_frame
from saeops.training.together import Run, train_together

KIND = "sweep"
VERSION = 1
TABLE = "sweep.parquet"
FIGURE = "sweep.png"


@dataclass(frozen=True)
class Member:
    """One SAE to be made."""

    chosen: SweepMember
    d_sae: int
    inputs: dict[str, Any]

    @property
    def name(self) -> str:
        return self.chosen.name


def run(params: Params, space: Workspace, *, watch: Watch) -> Ref:
    """Train every member of `train.sweep` and leave a sealed `artifacts/sweep`.

    Killed at any point, the same call goes on, and every member ends with the
    bytes that `saeops train` gives with its choices. Members that are there
    already, from an earlier sweep or as `artifacts/sae`, are not trained again.

    Raises:
        StageMissing: nothing has been harvested.
        ParamsInvalid: no members, or one that does not fit.
        NonFinite: training diverged, or the activations hold NaN.
        MemoryShort: the machine has less memory than all members need together.
        CheckpointDamaged: there are checkpoints of a member, and none can be trusted.
    """
    params = train.fresh(params)
    acts = ActivationSet.open(space.activations)
    data = training.TrainingData(acts, params.train, seed=params.seed)
    members = members_of(params, acts, d_model=data.d_model)
    inputs = {
        "activations": acts.sealed.digest,
        "members": {member.name: member.inputs for member in members},
        "seed": params.seed,
        "resamples": params.diagnose.resamples,
        "dense_above": params.diagnose.dense_above,
    }
    work = space.work("sweep", digest_json(inputs))
    if kept(space.sweep, kind=KIND, inputs=inputs) is None:
        made = work / "sweep"
        left = [member for member in members if not _made_before(member, made, space)]
        if left:
            _train(left, params, data, acts, work, watch=watch)
        _compare(_measured(members, params, acts, made, watch=watch), made, watch=watch)
        summary = {"members": [member.name for member in members], "site": params.train.site}
        seal(made, kind=KIND, version=VERSION, inputs=inputs, summary=summary)
        publish_folder(made, space.sweep)
    shutil.rmtree(work, ignore_errors=True)
    return Ref.of(open_sealed(space.sweep, kind=KIND))


def members_of(params: Params, acts: ActivationSet, *, d_model: int) -> list[Member]:
    """Every member of `train.sweep`, checked against the model.

    Raises:
        ParamsInvalid: there is none, or some do not fit.
    """
    faults: list[tuple[str, str]] = []
    members = []
    for number, chosen in enumerate(sweep_members(params)):
        inputs = train.inputs_of(chosen.params, acts)
        if chosen.params.seed != params.seed:
            inputs["order_seed"] = params.seed
        try:
            members.append(Member(chosen, check_against_model(chosen.params, d_model=d_model), inputs))
        except ParamsInvalid as error:
            faults += [(path.replace("train.", f"train.sweep.{number}.", 1), what) for path, what in error.faults]
    if not members and not faults:
        faults.append(("train.sweep", "names no SAEs; e.g. [{k: 16}, {k: 64}, {variant: batch_topk}]"))
    if faults:
        raise ParamsInvalid(faults)
    return members


def _made_before(member: Member, made: Path, space: Workspace) -> bool:
    """Whether the member's folder is finished, after taking it from where it stands already."""
    target = made / member.name
    if kept(target, kind=train.KIND, inputs=member.inputs) is not None:
        return True
    for source in (space.sweep / member.name, space.sae):
        if kept(source, kind=train.KIND, inputs=member.inputs) is not None:
            copy = target.with_name(f".{member.name}.copy")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(source, copy)
            publish_folder(copy, target)
            return True
    return False


# ── training ────────────────────────────────────────────────────────────────


def _train(
    members: Sequence[Member],
    params: Params,
    data: training.TrainingData,
    acts: ActivationSet,
    work: Path,
    *,
    watch: Watch,
) -> None:
    _say_memory(members, params, data, watch)
    runs = _begin_or_resume(members, params, data, work, watch=watch)
    _follow(runs, data, watch=watch)
    for member, one in zip(members, runs, strict=True):
        meta = train.meta_of(member.chosen.params, acts, member.d_sae)
        made = train.Made(one.state, meta, trained_documents(acts.documents))
        train.publish(made, work / "folding", work / "sweep" / member.name, inputs=member.inputs)


def _say_memory(members: Sequence[Member], params: Params, data: training.TrainingData, watch: Watch) -> None:
    each = [data.memory_needed(member.chosen.params.train, member.d_sae) for member in members]
    needed, device = Memory.together(each), training.device_of(params)
    for member, one in zip(members, each, strict=True):
        variant = member.chosen.params.train.variant
        watch.say(f"sweep: {member.name}: {variant} with {member.d_sae:,} latents, holds {in_gb(one.held)}")
    watch.say(f"sweep: {len(members)} SAEs together need up to {in_gb(needed.total)} of memory on {device}")
    training.refuse_or_warn(needed, device, watch)


def _begin_or_resume(
    members: Sequence[Member], params: Params, data: training.TrainingData, work: Path, *, watch: Watch
) -> list[Run]:
    device, sample, runs = training.device_of(params), data.sample(), []
    for member in members:
        chosen = member.chosen.params
        folder = work / "checkpoints" / member.name
        checkpoints = CheckpointFolder(folder, chosen.train.keep_checkpoints, member.inputs)
        title = f"sweep: {member.name}"
        state: TrainState | None = training.resumed_state(
            chosen, checkpoints, device=device, title=title, watch=watch
        )
        if state is None:
            state = begin(chosen.train, sample, d_sae=member.d_sae, seed=chosen.seed, device=device)
        runs.append(Run(member.name, state, chosen.train, checkpoints))
    return runs


def _follow(runs: Sequence[Run], data: training.TrainingData, *, watch: Watch) -> None:
    steps, size = Schedule.of(runs[0].config).steps, runs[0].config.batch_size
    left = sum(steps - one.state.step for one in runs) * size
    facts: dict[str, str] = {}
    with watch.bar(f"sweep of {len(runs)}", left, "tokens") as bar:
        for one, done in train_together(runs, data.batches):
            if done.point is not None:
                shown = done.point.facts()
                facts[one.name] = f"EV {shown['EV']} L0 {shown['L0']} dead {shown['dead']}"
                values = done.point.metrics()
                watch.metrics({f"{one.name}/{name}": value for name, value in values.items()}, step=done.step)
            bar.advance(done.tokens, **facts)


# ── comparison ──────────────────────────────────────────────────────────────


def _measured(
    members: Sequence[Member], params: Params, acts: ActivationSet, made: Path, *, watch: Watch
) -> list[dict[str, Any]]:
    """Rows of SweepTable."""
    draw = Bootstrap(params.diagnose.resamples, params.seed)
    held = Held.open(acts, Sites.of(params.train.site, params.train.target_site))
    total = len(members) * held.tokens
    with watch.bar("held-out documents", total, "tokens") as bar:
        return [
            _row(member, measured_metrics(seen, draw, dense_above=params.diagnose.dense_above), made)
            for member in members
            for seen in [measure(held, Sae.load(made / member.name), advance=bar.advance)]
        ]


def _row(member: Member, metrics: Mapping[str, Interval], made: Path) -> dict[str, Any]:
    explained, chosen = metrics["explained_variance"], member.chosen.params
    return {
        "name": member.name,
        "choices": json.dumps(dict(member.chosen.choices), sort_keys=True),
        "variant": chosen.train.variant,
        "k": getattr(chosen.train, "k", None),
        "d_sae": member.d_sae,
        "seed": chosen.seed,
        "explained_variance": explained.point,
        "explained_variance_low": explained.low,
        "explained_variance_high": explained.high,
        "documents": explained.n,
        "l0": metrics["l0"].point,
        "dead_fraction": metrics["dead_fraction"].point,
        "digest": open_sealed(made / member.name, kind=train.KIND).digest,
    }


def _compare(rows: Sequence[Mapping[str, Any]], made: Path, *, watch: Watch) -> None:
    frame = sweep_frame(rows)
    write_table(frame, made / TABLE, SweepTable, rows=len(rows))
    figure = sweep_figure(frame)
    save_png(figure, made / FIGURE)
    watch.figure("sweep", figure)
    shown = ("explained_variance", "l0", "dead_fraction")
    for row in rows:
        watch.metrics({f"{row['name']}/eval.{name}": row[name] for name in shown})
