"""Report: the finished bundle as one page for a browser, and as a screenful for the terminal."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import RenderableType

from saeops.files import write_atomic
from saeops.params import Params
from saeops.ports import Watch
from saeops.promotion.verdict import Verdict
from saeops.refs import Workspace
from saeops.report.contents import read_champion, read_contents
from saeops.report.page import Choices, render
from saeops.report.ruling import Size
from saeops.report.summary import render_summary
from saeops.review.outcome import ReviewOutcome

PAGE = "index.html"


def run(
    params: Params,
    space: Workspace,
    *,
    model_tokens: Callable[[Sequence[int]], list[str]],
    verdict: Verdict | None,
    review: ReviewOutcome | None,
    watch: Watch,
    champion: Path | None = None,
) -> Path:
    """Write `artifacts/report/index.html` from the bundle.

    Args:
        model_tokens: the model's token ids to the text of each.
        verdict: None where nobody has asked the judge.
        review: the live ledger's; None takes the decisions sealed into the bundle.
        champion: the champion's bundle, where there is another than this one.

    Raises:
        StageMissing: there is no bundle.
        FolderDamaged: the bundle's bytes changed.
    """
    page = render(
        read_contents(space.bundle),
        choices(params),
        texts=model_tokens,
        verdict=verdict,
        review=review,
        champion=read_champion(champion) if champion else None,
    )
    path = space.report / PAGE
    write_atomic(path, page.encode())
    watch.file(path)
    return path


def summary(
    params: Params, space: Workspace, *, verdict: Verdict | None, review: ReviewOutcome | None
) -> RenderableType:
    """What to print at the end of a build.

    Raises:
        StageMissing: there is no bundle.
    """
    path = space.report / PAGE
    return render_summary(
        read_contents(space.bundle),
        choices(params),
        verdict=verdict,
        review=review,
        report=path if path.exists() else None,
    )


def choices(params: Params) -> Choices:
    """What the report needs of the params."""
    return Choices(
        name=params.name,
        seed=params.seed,
        min_positives=params.label.min_positives,
        policy=params.promote,
        size=Size(
            params.train.tokens,
            params.train.expansion_factor,
            params.harvest.tokens,
            params.diagnose.fidelity_documents,
        ),
    )
