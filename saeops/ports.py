"""Ports: what stages ask of the world. Adapters give it, services joins the two.

Shape letters: B window, W position in a window, D d_model, V vocabulary, F latent.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from saeops.digests import digest_json

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from matplotlib.figure import Figure
    from torch import Tensor

    from saeops.promotion.projection import Shown, Tags
    from saeops.review.ledger import Decision, LedgerEntry

# ── language models ─────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ModelIdentity:
    """What a model is: everything made from it carries this."""

    ref: str
    digest: str
    """sha256 over the digests of its weight, tokenizer and config files."""
    architecture: str
    """The transformers class, e.g. `LlamaForCausalLM`."""
    n_layers: int
    d_model: int
    vocabulary: int

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def randomly_initialised(self, seed: int) -> "ModelIdentity":
        """That of a copy of the same architecture whose weights are drawn by this seed."""
        digest = digest_json({"model": self.digest, "random_init": seed})
        return replace(self, ref=f"{self.ref} with random weights of seed {seed}", digest=digest)


Edit = Callable[["Float[Tensor, 'B W D']"], "Float[Tensor, 'B W D']"]
"""Replaces a site's activations during a forward pass; must keep the shape."""


class Resumed(Protocol):
    """Forward passes over the same windows, of which the part before the first edit is computed once."""

    def logits(
        self, edits: Mapping[str, Edit] | None = None, *, at: "Int[Tensor, ' B'] | None" = None
    ) -> "Float[Tensor, 'B W V']":
        """What `LanguageModel.logits` gives for these windows, bit for bit."""
        ...


class LanguageModel(Protocol):
    """A causal language model that can be read and edited at named sites.

    Windows shorter than W are padded on the right with any token: attention is
    causal, so what stands after a window's end changes nothing before it.
    """

    identity: ModelIdentity
    bos_id: int | None
    """The token put before each window: the tokenizer's bos, else its eos, else none."""
    special_ids: frozenset[int]

    def width(self, site: str) -> int:
        """Width of a site's activations. Raises SiteUnknown, listing what there is."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids without specials."""
        ...

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Each id as the text it stands for (spaces and newlines as they are)."""
        ...

    def capture(self, ids: "Int[Tensor, 'B W']", sites: Sequence[str]) -> "dict[str, Float[Tensor, 'B W D']]":
        """Activations at the sites, fp32 on the model's device; the pass stops after the last one."""
        ...

    def logits(
        self,
        ids: "Int[Tensor, 'B W']",
        edits: Mapping[str, Edit] | None = None,
        *,
        at: "Int[Tensor, ' B'] | None" = None,
    ) -> "Float[Tensor, 'B W V']":
        """Logits, fp32, with each site's activations replaced by what its edit returns.

        `at` names one position a window: only its logits are computed, and W is 1.
        """
        ...

    def from_site(self, ids: "Int[Tensor, 'B W']", sites: Sequence[str]) -> Resumed:
        """For several passes over the same windows with edits at these sites and later ones.

        What comes before the first site's block runs with the first pass, and only then.
        """
        ...

    def unembed(self, directions: "Float[Tensor, 'F D']") -> "Float[Tensor, 'F V']":
        """Direct effect of residual-stream directions on the logits, through the final norm's weight."""
        ...

    def generate(
        self, prompts: Sequence[str], *, max_new_tokens: int, system: str = "", prefix: str = ""
    ) -> list[str]:
        """The greedy answer to each chat prompt (plain continuation where there is no chat template).

        The prompts run as one batch, padded on the left; `prefix` begins each answer and is not repeated.
        """
        ...

    def answer_logits(
        self, prompts: Sequence[str], choices: Sequence[str], *, system: str = "", prefix: str = ""
    ) -> "Float[Tensor, 'prompt choice']":
        """The next-token logit of each choice's first token after each chat prompt and a begun answer."""
        ...


@dataclass(frozen=True)
class Document:
    """One text with where it came from."""

    text: str
    source: str


class Corpus(Protocol):
    """Documents in a fixed order."""

    identity: Mapping[str, Any]
    """What determines the documents, for the activation set's inputs."""

    def documents(self) -> Iterator[Document]:
        """Raw documents; dropping and splitting is the harvest's work."""
        ...


class Llm(Protocol):
    """Something that answers chat prompts."""

    name: str
    identity: Mapping[str, Any]
    """What determines its answers, as far as can be known."""
    batch: int
    """Prompts it likes to answer at once."""
    outside: bool
    """It answers from outside this process: each answer has a price, so nonsense ends it early."""

    def ask(self, prompts: Sequence[str], *, system: str = "", prefix: str = "", max_tokens: int) -> list[str]:
        """One answer a prompt; where it can be done, each is made to begin with `prefix`.

        Raises:
            EndpointUnavailable: no answer after its retries.
        """
        ...

    def lean(self, prompts: Sequence[str], *, system: str = "") -> list[float] | None:
        """How far each next word leans to yes over no, in nats; None where it can only write."""
        ...


# ── watching ────────────────────────────────────────────────────────────────


class Bar(Protocol):
    """One progress bar."""

    def advance(self, amount: float = 1, **facts: str) -> None:
        """Move on; `facts` are shown beside the rate (loss, dead latents, …)."""
        ...


class Watch(Protocol):
    """How a person follows a stage: bars on the terminal, metrics and figures in the tracker."""

    def bar(self, title: str, total: float, unit: str) -> AbstractContextManager[Bar]: ...

    def say(self, text: str) -> None:
        """One line that stays."""
        ...

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...

    def figure(self, name: str, figure: "Figure") -> None: ...

    def file(self, path: Path) -> None:
        """Keep a small file with the run."""
        ...


# ── the registry ────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Found:
    """An object's bytes and the tag a conditional write must name."""

    data: bytes
    etag: str


class ObjectStore(Protocol):
    """Bytes under keys, with compare-and-swap. The only truth of promotion."""

    address: str

    def get(self, key: str) -> Found | None:
        """A small object, whole."""
        ...

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str | None:
        """Write, and give the new etag; None when the condition did not hold (nothing written)."""
        ...

    def pieces(self, key: str) -> Iterator[bytes] | None:
        """An object of any size, one piece of it in memory at a time; None where there is none."""
        ...

    def put_file(self, key: str, path: Path, sha256: str) -> None:
        """Write a file of any size, in pieces; readers see all of it or nothing.

        Raises:
            FolderDamaged: the file does not have this sha256; nothing was written.
        """
        ...

    def list(self, prefix: str) -> list[str]:
        """Keys under the prefix, sorted."""
        ...

    def sizes(self, prefix: str) -> dict[str, int]:
        """Key → bytes of every object under the prefix, without reading one."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        ...


class ReviewLedger(Protocol):
    """Append-only, hash-chained review decisions."""

    address: str

    def append(self, decision: "Decision") -> "LedgerEntry": ...

    def entries(self) -> "list[LedgerEntry]":
        """All entries in order, chain verified. Raises LedgerTampered."""
        ...


class RegistryProjection(Protocol):
    """The readable copy of the registry (MLflow's versions, aliases and tags). Never the truth."""

    def shown(self, name: str) -> "Shown | None":
        """All that the copy shows of a name now; None where no copy is kept."""
        ...

    def register(self, name: str, digest: str, bundle: Path, tags: "Tags") -> None:
        """Make sure a version for this digest exists; one that is there keeps its tags."""
        ...

    def tag(self, name: str, digest: str | None, tags: "Tags") -> None:
        """Set tags of a version, or (digest None) of the name itself; a value None removes one."""
        ...

    def point(self, name: str, alias: str, digest: str | None) -> None:
        """Set an alias to the version of this digest; None removes it."""
        ...

    def aliases(self, name: str) -> dict[str, str]:
        """alias → digest, as the projection shows it now; those on foreign versions are left out."""
        ...


class DataVersions(Protocol):
    """DVC: versions of what stages leave behind."""

    def commit(self) -> None:
        """Record every finished stage output in dvc.lock and the cache."""
        ...

    def push(self) -> None: ...

    def is_clean(self) -> bool:
        """Whether dvc.lock agrees with the checkout, and the remote has all that it names."""
        ...

    def restore(self, folder: Path) -> None:
        """Bring what the dvc.lock of another checkout names into it, from this one's remote.

        Raises:
            UsageError: there is no remote.
            DataMissing, DataDamaged: the remote lacks a file, or holds other bytes; names it.
            DataVersionsFailed: the remote does not answer.
        """
        ...


class Sources(Protocol):
    """git: versions of what people write."""

    def commit(self) -> str:
        """The commit that is checked out. Raises UsageError where there is none."""
        ...

    def uncommitted(self, paths: Sequence[str]) -> list[str]:
        """Files under the paths that differ from the commit."""
        ...

    def place(self, folder: Path, commit: str) -> None:
        """Make a folder an empty worktree of the commit. Raises CommitMissing."""
        ...

    def fill(self, folder: Path, commit: str) -> None:
        """Lay every file of the commit into a worktree."""
        ...

    def is_placed(self, folder: Path) -> bool:
        """Whether a folder is a worktree of this repository."""
        ...
