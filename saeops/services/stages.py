"""The stages, from documents to a bundle, and to and from other libraries."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from saeops.params import Params
from saeops.refs import Ref
from saeops.services.clients import Clients, utc_now

if TYPE_CHECKING:
    from saeops.sae.formats.names import Format
    from saeops.stages.diagnose import Diagnosed
    from saeops.stages.foreign import Exported


class Stages(Clients):
    """Verbs that leave sealed folders under `artifacts/`."""

    def harvest(self, params: Params) -> Ref:
        from saeops.stages import harvest

        with self._watching("harvest", params) as watch:
            model, corpus = self.model(params.model), self.corpus(params.corpus)
            return harvest.run(params, self.space, model=model, corpus=corpus, watch=watch)

    def train(self, params: Params) -> Ref:
        from saeops.stages import train

        with self._watching("train", params) as watch:
            self._ready_kernels(watch)
            return train.run(params, self.space, watch=watch, find_sae=self._sae_folder)

    def _sae_folder(self, digest: str) -> Path:
        """The SAE of a bundle in the registry, verified, in the local cache."""
        from saeops.stages import load

        return load.find(digest, store=self.store, cache=self.settings.cache).path / "sae"

    def controls(self, params: Params) -> Ref:
        from saeops.stages import controls

        with self._watching("controls", params) as watch:
            self._ready_kernels(watch)
            model = partial(self.random_model, params)
            return controls.run(params, self.space, random_model=model, watch=watch)

    def sweep(self, params: Params) -> Ref:
        from saeops.stages import sweep

        with self._watching("sweep", params, section="train") as watch:
            self._ready_kernels(watch)
            return sweep.run(params, self.space, watch=watch)

    def diagnose(self, params: Params) -> "Diagnosed":
        from saeops.stages import diagnose

        with self._watching("diagnose", params) as watch:
            self._ready_kernels(watch)
            random_model = partial(self.random_model, params)
            return diagnose.run(
                params, self.space, model=self.model(params.model), random_model=random_model, watch=watch
            )

    def label(self, params: Params, *, carry_from: str | None = None, activations: Sequence[Path] = ()) -> Ref:
        """Labels; with `carry_from`, those of the dictionary it means come first, as far as they stand.

        Args:
            activations: folders of further activation sets, of the old dictionary's model.
        """
        from saeops.stages import carry, label, load

        old = None if carry_from is None else load.find(carry_from, store=self.store, cache=self.settings.cache)
        with self._watching("label", params) as watch:
            self._ready_kernels(watch)
            model, llm = self.model(params.model), self.llm(params)
            carrying = None
            if old is not None:
                sets = self._activation_sets(activations)
                carrying = carry.run(old, params, self.space, activations=sets, watch=watch)
            return label.run(params, self.space, model=model, llm=llm, watch=watch, carrying=carrying)

    def bench(self, params: Params) -> Ref:
        from saeops.stages import bench

        with self._watching("bench", params) as watch:
            self._ready_kernels(watch)
            return bench.run(params, self.space, model=self.model(params.model), watch=watch)

    def bundle(self, params: Params) -> Ref:
        from saeops.stages import bundle

        with self._watching("bundle", params) as watch:
            return bundle.run(params, self.space, watch=watch)

    def import_sae(
        self,
        params: Params,
        folder: Path,
        *,
        format: "Format | None",
        site: str | None = None,
        target_site: str | None = None,
        force: bool = False,
    ) -> Ref:
        """Another library's SAE in the place of a trained one."""
        from saeops.stages import foreign

        with self._watching("import", params) as watch:
            return foreign.import_sae(
                folder, self.space, format=format, site=site, target_site=target_site, force=force, watch=watch
            )

    def export_sae(self, format: "Format", *, to: Path | None, reference: str | None, force: bool) -> "Exported":
        """The local SAE, or that of a dictionary that `reference` means, as another library keeps it."""
        from saeops.sae.canonical import Sae
        from saeops.sealed import verify
        from saeops.stages import foreign, load

        if reference is None:
            verify(self.space.sae, kind="sae", made_by="saeops train")
            sae = Sae.load(self.space.sae)
        else:
            sae = load.run(reference, store=self.store, cache=self.settings.cache).sae
        folder = to or self.settings.root / "artifacts" / "export" / format
        return foreign.export_sae(sae, folder, format=format, force=force)

    def export_results(self, *, to: Path | None, reference: str | None, force: bool) -> "Exported":
        """The built bundle's diagnostics, or those of the one that `reference` means, as SAEBench keeps them."""
        from saeops.dictionary.bundle import open_bundle
        from saeops.stages import load, saebench

        if reference is None:
            bundle = open_bundle(self.space.bundle)
        else:
            bundle = load.find(reference, store=self.store, cache=self.settings.cache)
        folder = to or self.settings.root / "artifacts" / "export" / "saebench"
        return saebench.run(bundle, folder, force=force, epoch_millis=int(utc_now().timestamp() * 1000))
