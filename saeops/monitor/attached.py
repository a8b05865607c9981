"""A monitor on a transformers model: what trusted features of a dictionary fire while the model works.

# B sequence, W token of this pass, T counted token, D d_model, L trusted latent, N firing
"""

import datetime
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from saeops.activations.sites import find_structure, hidden_of, resolve
from saeops.activations.windows import norm_mask
from saeops.adapters.model_source import digest_of_folder
from saeops.adapters.models import bos_id, special_ids
from saeops.dictionary.handle import Dictionary
from saeops.errors import ModelMismatch, ModelUnchecked, SaeopsError, UsageError
from saeops.monitor.firings import Clock, FiringFiles, Rotation
from saeops.monitor.places import Places, Sequences
from saeops.monitor.tally import Collector, Tally, register
from saeops.sae.codes import Codes


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Monitor:
    """Records the trusted features of a dictionary that fire in a transformers model.

    It reads and changes nothing: a hook looks at the dictionary's input site in each forward pass. The
    dictionary's token policy decides which tokens count. Of a ReLU or JumpReLU dictionary only the trusted
    latents are computed; of a TopK one all are, because all compete.

    Args:
        dictionary: as `saeops.load` gives it.
        model: a transformers causal language model, or its base model.
        tokenizer: the model's; tells which tokens are special.
        folder: where parquet files go; None: none are written.
        registry: a `prometheus_client` registry that collects the counts; None: none does.
        min_confidence: trusted from here on; None takes the policy that the dictionary was built under.
        rotation: when files are written and how many stay.
        clock: the time, for rows and file names.

    Raises:
        ModelMismatch: the model comes from a folder with other weights than the dictionary was made from.
        SiteUnknown: the model has no such site.
        UsageError: nothing is trusted, or the registry holds a monitor already.
        ToolMissing: a registry without prometheus_client.

    Warns:
        ModelUnchecked: the model does not come from a folder, so nothing tells which it is.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        model: nn.Module,
        tokenizer: Any,
        *,
        folder: str | Path | None = None,
        registry: Any = None,
        min_confidence: float | None = None,
        rotation: Rotation = Rotation(),  # noqa: B008 (frozen)
        clock: Clock = utc_now,
    ) -> None:
        _check_model(dictionary, model)
        features = sorted(dictionary.features(min_confidence), key=lambda feature: feature.latent)
        if not features:
            raise UsageError(
                f"{dictionary.name} has no feature that is trusted enough", hint="pass a lower min_confidence"
            )
        structure = find_structure(model)
        self._place = resolve(structure, dictionary.sites.input)
        self._base = model.get_submodule(structure.path.rpartition(".")[0])
        device = next(self._place.module.parameters()).device
        self._read = _trusted_reader(dictionary, [feature.latent for feature in features], device)
        self._policy, self._limit = dictionary.provenance.policy, dictionary.sae.meta.norm_limit
        self._special, self._bos = special_ids(tokenizer), bos_id(tokenizer)
        self.tally = Tally(features)
        self._latents_L = torch.tensor([feature.latent for feature in features])
        facts = {
            "dictionary": dictionary.name,
            "digest": dictionary.digest,
            "site": dictionary.sites.input,
            "policy": self._policy.model_dump(mode="json"),
            "features": {str(each.latent): [each.label, each.confidence] for each in features},
        }
        self._files = None if folder is None else FiringFiles(Path(folder), facts, rotation, clock)
        self._registry, self._collector = registry, Collector(self.tally, dictionary.name, dictionary.digest[:12])
        self._sequences, self._now = Sequences(), threading.local()
        self._lock = threading.Lock()
        self._handles: list[Any] = []
        self._problem: SaeopsError | OSError | None = None

    def attach(self) -> Self:
        """Begin to watch; nothing happens where it watches already."""
        if self._handles:
            return self
        if self._registry is not None:
            register(self._collector, self._registry)
        look: Callable[..., None] = self._look_at_input if self._place.side == "input" else self._look_at_output
        module = self._place.module
        hook = module.register_forward_pre_hook if self._place.side == "input" else module.register_forward_hook
        self._handles = [
            self._base.register_forward_pre_hook(self._begin, with_kwargs=True),
            hook(look),
            self._base.register_forward_hook(self._end),
        ]
        return self

    def detach(self) -> None:
        """Leave the model as it was, and write what is in memory.

        Raises:
            DiskFull, StoreDenied, OSError: the folder could not be written, now or while the model worked.
        """
        for handle in self._handles:
            handle.remove()
        if self._handles and self._registry is not None:
            self._registry.unregister(self._collector)
        self._handles = []
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem
        self.flush()

    def flush(self) -> None:
        """Write what is in memory as a file."""
        if self._files is not None:
            with self._lock:
                self._files.write()

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def _begin(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        with self._lock:
            self._now.places = self._sequences.places(args, kwargs)

    def _end(self, _module: nn.Module, _args: Any, output: Any) -> None:
        places: Places | None = getattr(self._now, "places", None)
        self._now.places = None
        if places is not None:
            with self._lock:
                self._sequences.keep(places, output)

    def _look_at_input(self, _module: nn.Module, args: Any) -> None:
        self._look(args[0])

    def _look_at_output(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self._look(hidden_of(output))

    @torch.no_grad()
    def _look(self, x_BWD: Float[Tensor, "B W D"]) -> None:
        places: Places | None = getattr(self._now, "places", None)
        started = time.perf_counter()
        x_BWD = x_BWD.detach().float()
        if places is None:
            self._skip("embeddings", x_BWD.shape[0] * x_BWD.shape[1])
            return
        counts_BW = self._counted(places, x_BWD)
        if counts_BW.any():
            self._record(places, counts_BW, self._read(x_BWD[counts_BW]))
        with self.tally.lock:
            self.tally.seconds += time.perf_counter() - started

    def _counted(self, places: Places, x_BWD: Float[Tensor, "B W D"]) -> Bool[Tensor, "B W"]:
        within_BW = places.counted(self._policy, self._special, bos=self._bos) & norm_mask(x_BWD, self._limit)
        counts_BW = within_BW & x_BWD.isfinite().all(-1)
        counted = int(counts_BW.sum())
        self._skip("policy", int((places.present & ~within_BW).sum()))
        self._skip("non_finite", int(within_BW.sum()) - counted)
        with self.tally.lock:
            self.tally.tokens += counted
        return counts_BW

    def _record(self, places: Places, counts_BW: Bool[Tensor, "B W"], codes: Codes) -> None:
        """The codes are those of the tokens that count, with latents numbered among the trusted ones."""
        index_N, row_N = codes.latent.cpu(), codes.rows().cpu()
        activation = codes.value.cpu().numpy()
        self.tally.add(index_N.numpy(), activation.astype(float))
        if self._files is None or self._problem is not None:
            return
        sequence_BW = places.sequence[:, None].expand(counts_BW.shape)
        mask_BW = counts_BW.cpu()
        columns = {"sequence": sequence_BW, "position": places.position.cpu(), "token": places.ids.cpu()}
        firings = {name: column[mask_BW][row_N].numpy() for name, column in columns.items()}
        firings |= {"latent": self._latents_L[index_N].numpy(), "activation": activation}
        try:
            with self._lock:
                self._files.add(firings)
        except (SaeopsError, OSError) as problem:
            # The model's own work goes on; `detach` raises this.
            self._problem = problem
            warnings.warn(f"the monitor records nothing more: {problem}", RuntimeWarning, stacklevel=2)

    def _skip(self, reason: str, count: int) -> None:
        with self.tally.lock:
            self.tally.skipped[reason] += count


def _trusted_reader(
    dictionary: Dictionary, latents: list[int], device: torch.device
) -> Callable[[Float[Tensor, "T D"]], Codes]:
    """Encodes, and keeps the trusted latents, numbered 0 to L − 1 in ascending order."""
    latents_L = torch.tensor(latents, device=device)
    sae = dictionary.sae.to(device)
    if sae.k is None:
        return sae.only(latents_L).encode
    index_F = torch.full((sae.meta.d_sae,), -1, device=device)
    index_F[latents_L] = torch.arange(len(latents), device=device)

    def read(x_TD: Float[Tensor, "T D"]) -> Codes:
        codes = sae.encode(x_TD)
        index_N = index_F[codes.latent]
        trusted_N = index_N >= 0
        offsets = torch.cat([codes.offsets[:1], trusted_N.long().cumsum(0)])[codes.offsets]
        return Codes(offsets, index_N[trusted_N], codes.value[trusted_N], len(latents))

    return read


def _check_model(dictionary: Dictionary, model: nn.Module) -> None:
    made_from = dictionary.provenance.model
    origin = str(getattr(getattr(model, "config", None), "_name_or_path", "") or "")
    if not (Path(origin) / "config.json").is_file() or not origin:
        warnings.warn(
            f"nothing tells whether this {type(model).__name__} is the model that {dictionary.name} was made from"
            f" ({str(made_from['digest'])[:12]}): it was not loaded from a folder",
            ModelUnchecked,
            stacklevel=3,
        )
        return
    ref = str(dictionary.provenance.params.get("model", {}).get("ref", ""))
    found = digest_of_folder(Path(origin), ref)
    if found != made_from["digest"]:
        raise ModelMismatch(
            f"{dictionary.name} was made from {made_from.get('ref', ref)} ({str(made_from['digest'])[:12]}),"
            f" this model comes from {origin} ({found[:12]})",
            hint="monitor the model that the dictionary was made from, or load that one's dictionary",
        )
