"""What labelling has finished so far: one line of JSON a piece of work, on the disk before the next begins."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from saeops.errors import EndpointUnavailable
from saeops.files import explained, write_atomic
from saeops.labelling.labels import Label, Labeller, Outcome, Unparsed, Verdict

FIRST_ANSWERS = 20


class Progress:
    """An append-only file of outcomes and verdicts; a line that a kill cut short is forgotten.

    Lines: `{"labeller", "outcomes": {latent: outcome}}` for latents that were
    explained together, `{"labeller", "latent", "label_of", "verdicts"}` for a
    label (of `label_of`) tested on a latent's snippets.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.outcomes: dict[tuple[str, int], Outcome] = {}
        self.verdicts: dict[tuple[str, int, int], list[Verdict]] = {}
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                # The next line must not be glued to half a line.
                os.truncate(path, len(whole))
        for line in whole.splitlines():
            self._take(json.loads(line))

    def add_outcomes(self, labeller: str, latents: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        """Keep the outcomes of latents that were explained together."""
        pairs = zip(latents, outcomes, strict=True)
        self._append({"labeller": labeller, "outcomes": {str(latent): _written(each) for latent, each in pairs}})

    def add_verdicts(self, labeller: str, latent: int, label_of: int, verdicts: Sequence[Verdict]) -> None:
        """Keep the verdicts on one latent's snippets."""
        written = [{"unparsed": v.reason} if isinstance(v, Unparsed) else int(v) for v in verdicts]
        self._append({"labeller": labeller, "latent": latent, "label_of": label_of, "verdicts": written})

    def drop(self, labeller: str) -> None:
        """Forget everything of one labeller: its answers were nonsense."""
        lines = self._path.read_bytes().splitlines(keepends=True)
        write_atomic(self._path, b"".join(x for x in lines if json.loads(x)["labeller"] != labeller))
        self.outcomes = {key: value for key, value in self.outcomes.items() if key[0] != labeller}
        self.verdicts = {key: value for key, value in self.verdicts.items() if key[0] != labeller}

    def _append(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        with explained(self._path), self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        # Read back through JSON, so that a resumed run cannot differ from an unbroken one.
        self._take(json.loads(line))

    def _take(self, record: dict[str, Any]) -> None:
        labeller = record["labeller"]
        if "outcomes" in record:
            for latent, written in record["outcomes"].items():
                self.outcomes[labeller, int(latent)] = _read(labeller, written)
            return
        verdicts: Iterable[Any] = record["verdicts"]
        self.verdicts[labeller, record["latent"], record["label_of"]] = [
            Unparsed(v["unparsed"]) if isinstance(v, dict) else bool(v) for v in verdicts
        ]


def _written(outcome: Outcome) -> dict[str, str | None]:
    if isinstance(outcome, Unparsed):
        return {"unparsed": outcome.reason}
    return {"text": outcome.text, "rule": outcome.rule}


def _read(labeller: str, written: dict[str, str | None]) -> Outcome:
    reason = written.get("unparsed")
    if reason is not None:
        return Unparsed(reason)
    return Label(labeller, written["text"] or "", written["rule"])


class Sanity:
    """Watches the first answers from outside: who mostly cannot be understood is not asked on.

    A labeller in this process is heard to the end; its failures are counted and cost nobody anything.

    Raises (from `saw`):
        EndpointUnavailable: more than half of the first `FIRST_ANSWERS` could not be read.
    """

    def __init__(self, labeller: Labeller, progress: Progress) -> None:
        self._labeller = labeller
        self._progress = progress
        self._first: list[Outcome | Verdict] = []

    def saw(self, answers: Sequence[Outcome] | Sequence[Verdict]) -> None:
        if not self._labeller.outside or len(self._first) >= FIRST_ANSWERS:
            return
        self._first.extend(answers)
        first = self._first[:FIRST_ANSWERS]
        failed = [answer for answer in first if isinstance(answer, Unparsed)]
        if len(first) < FIRST_ANSWERS or len(failed) <= FIRST_ANSWERS // 2:
            return
        # Kept, they would stand for its labels for ever, however it is mended.
        self._progress.drop(self._labeller.name)
        raise EndpointUnavailable(
            f"{self._labeller.name} answers nonsense: {len(failed)} of its first {FIRST_ANSWERS} answers "
            f"could not be read (for example: {failed[0].reason})",
            hint="choose another model in label.llm.model, or do without: --set label.llm_latents=0",
        )
