"""References: what tasks pass to one another instead of the data itself."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from saeops.config import Frozen
from saeops.sealed import Sealed

SiteKind = Literal["resid_post", "attn_out", "mlp_out", "mlp_hidden"]
_SITE = re.compile(r"blocks\.(\d+)\.(resid_post|attn_out|mlp_out|mlp_hidden)")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


def parse_site(text: str) -> tuple[int, SiteKind]:
    """`blocks.10.resid_post` → (10, "resid_post").

    Raises:
        ValueError: not a site's name.
    """
    match = _SITE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a site; write blocks.<n>.<resid_post|attn_out|mlp_out|mlp_hidden>")
    return int(match[1]), match[2]  # type: ignore[return-value]


_FORWARD: tuple[SiteKind, ...] = ("attn_out", "mlp_hidden", "mlp_out", "resid_post")


def reached(site: str) -> tuple[int, int]:
    """When a forward pass comes by a site: what comes later compares greater."""
    block, kind = parse_site(site)
    return block, _FORWARD.index(kind)


def writes_to_residual(site: str) -> bool:
    """Whether directions at the site are directions of the residual stream."""
    return parse_site(site)[1] != "mlp_hidden"


def _check_site(text: str) -> str:
    parse_site(text)
    return text


def _check_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("use lower-case letters, digits, '.', '_', '-' and '/' (model-family/site)")
    return text


Site = Annotated[str, AfterValidator(_check_site)]
"""A place in the model: `blocks.<n>.<resid_post|attn_out|mlp_out|mlp_hidden>`."""

DictionaryName = Annotated[str, AfterValidator(_check_name)]
"""One model family at one site, for example `smollm2-135m/blocks.10.resid_post`."""


class Ref(Frozen):
    """A finished stage output: where it lies and what its bytes are called."""

    kind: str
    path: Path
    digest: str

    @classmethod
    def of(cls, sealed: Sealed) -> "Ref":
        return cls(kind=sealed.kind, path=sealed.path, digest=sealed.digest)


class Workspace(Frozen):
    """The folders of one checkout: `artifacts/<stage>` as dvc.yaml names them."""

    root: Path
    folder: Path = Path("artifacts")
    """Where under the root stages leave what they make."""
    activations_folder: Path = Path("artifacts")
    """Where under the root the activation set lies."""

    @property
    def activations(self) -> Path:
        return self.root / self.activations_folder / "activations"

    @property
    def sae(self) -> Path:
        return self.root / self.folder / "sae"

    @property
    def sweep(self) -> Path:
        """Several SAEs, from `saeops sweep`."""
        return self.root / self.folder / "sweep"

    @property
    def controls(self) -> Path:
        """SAEs to compare with, from `saeops controls`."""
        return self.root / self.folder / "controls"

    def control(self, name: str, *, same_activations: bool) -> "Workspace":
        """One control's own folders, with its own activation set or that of the dictionary."""
        folder = self.folder / "controls" / name
        reads = self.activations_folder if same_activations else folder
        return Workspace(root=self.root, folder=folder, activations_folder=reads)

    @property
    def diagnostics(self) -> Path:
        return self.root / self.folder / "diagnostics"

    @property
    def catalog(self) -> Path:
        return self.root / self.folder / "catalog"

    @property
    def labels(self) -> Path:
        return self.root / self.folder / "labels"

    @property
    def effects(self) -> Path:
        return self.root / self.folder / "effects"

    @property
    def bundle(self) -> Path:
        return self.root / self.folder / "bundle"

    @property
    def reviewed(self) -> Path:
        """The bundle with people's decisions sealed in."""
        return self.root / self.folder / "reviewed"

    @property
    def audit(self) -> Path:
        """A dictionary on two models, from `saeops audit`."""
        return self.root / self.folder / "audit"

    @property
    def beside(self) -> Path:
        """The champion on the built dictionary's model, from `saeops beside`."""
        return self.root / self.folder / "beside"

    @property
    def match(self) -> Path:
        """Two dictionaries matched, from `saeops match`."""
        return self.root / self.folder / "match"

    @property
    def report(self) -> Path:
        return self.root / self.folder / "report"

    def work(self, stage: str, inputs_digest: str) -> Path:
        """Where an unfinished stage keeps what it has; another `inputs_digest` starts afresh."""
        return self.root / "artifacts" / ".work" / f"{stage}-{inputs_digest[:16]}"
