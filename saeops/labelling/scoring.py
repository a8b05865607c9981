"""How good a label is: detection on documents that explained nothing.

Every rate is a Wilson interval over the answers that could be read; answers
that could not are counted apart. Normative page: docs/formats/labels.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from saeops.labelling.examples import Snippet, TestSet
from saeops.labelling.labels import Unparsed, Verdict
from saeops.stats import Interval, wilson

ALPHA = 0.05


@dataclass(frozen=True)
class Score:
    """What a label showed on its test set."""

    tpr: Interval
    """Share of firing snippets where the judge says yes."""
    tnr: Interval
    """Share of random silent snippets where the judge says no."""
    fp_hard: Interval
    """Share of silent look-alikes where the judge says yes."""
    precision: Interval
    """Of tokens where the judge would say yes in running text, the share on which the latent fires."""
    base_rate: float
    asked: int
    parse_failures: int
    confidence: float
    """Lower bound of TPR + TNR − 1 (Youden's J); 0 for a judge that knows nothing."""


NOTHING_KNOWN = wilson(0, 0)


def unscored(*, base_rate: float, asked: int, parse_failures: int) -> Score:
    """The score of what could not be tested: every rate unknown, no confidence."""
    unknown = NOTHING_KNOWN
    return Score(unknown, unknown, unknown, unknown, base_rate, asked, parse_failures, confidence=0.0)


def score(
    verdicts: Sequence[Verdict], test: TestSet, *, competing: int, min_positives: int, asked_before: int = 0
) -> Score:
    """Weigh a judge's verdicts on a test set.

    Args:
        competing: how many labels of this latent compete, for the confidence's bound.
        min_positives: with fewer firing snippets answered, the confidence is 0.
        asked_before: answers asked for before detection (the label itself).
    """
    answered = [(v, s) for v, s in zip(verdicts, test.snippets, strict=True) if not isinstance(v, Unparsed)]
    positives = [v for v, s in answered if s.drawn == "positive"]
    randoms = [v for v, s in answered if s.drawn == "random"]
    hards = [v for v, s in answered if s.drawn == "hard"]
    return Score(
        tpr=wilson(sum(positives), len(positives)),
        tnr=wilson(len(randoms) - sum(randoms), len(randoms)),
        fp_hard=wilson(sum(hards), len(hards)),
        precision=precision(answered, test),
        base_rate=test.base_rate,
        asked=len(verdicts) + asked_before,
        parse_failures=len(verdicts) - len(answered),
        confidence=confidence(positives, randoms, competing=competing, min_positives=min_positives),
    )


def confidence(positives: Sequence[bool], randoms: Sequence[bool], *, competing: int, min_positives: int) -> float:
    """max(0, low(TPR) + low(TNR) − 1), each bound one-sided at level 1 − α/(2·competing).

    The two bounds share α by Bonferroni, and so do the competing labels, of
    which the best is chosen. Always yes, always no and a coin all get 0.
    """
    if len(positives) < min_positives:
        return 0.0
    # A two-sided interval at level L has a one-sided lower bound at (1 + L)/2.
    level = 1 - ALPHA / competing
    tpr = wilson(sum(positives), len(positives), level=level)
    tnr = wilson(len(randoms) - sum(randoms), len(randoms), level=level)
    assert tpr.low is not None
    assert tnr.low is not None
    return max(0.0, tpr.low + tnr.low - 1)


def precision(answered: Sequence[tuple[bool, Snippet]], test: TestSet) -> Interval:
    """Precision in running text: πTPR / (πTPR + (1 − π)FPR), π the base rate.

    FPR = h·FPR(look-alikes) + (1 − h)·FPR(other silent tokens), h the share of
    look-alikes among the silent: hard negatives are drawn more often than they
    occur, and this weighs them back. The interval takes the three rates at
    their worst and at their best together, each at level 1 − α/3, so it
    covers at least 1 − α; π and h are counted over the whole split.
    """
    hits = [v for v, s in answered if s.drawn == "positive"]
    alike = [v for v, s in answered if s.drawn != "positive" and s.look_alike]
    other = [v for v, s in answered if s.drawn != "positive" and not s.look_alike]
    tpr, fp_alike, fp_other = (wilson(sum(v), len(v), level=1 - ALPHA / 3) for v in (hits, alike, other))
    share = test.look_alike_share

    def mixed(alike_rate: float | None, other_rate: float | None) -> float:
        assert alike_rate is not None
        assert other_rate is not None
        return share * alike_rate + (1 - share) * other_rate

    return Interval(
        point=_bayes(test.base_rate, tpr.point, mixed(fp_alike.point, fp_other.point)),
        low=_bayes(test.base_rate, tpr.low, mixed(fp_alike.high, fp_other.high)),
        high=_bayes(test.base_rate, tpr.high, mixed(fp_alike.low, fp_other.low)),
        n=len(answered),
        unit="answers",
        level=1 - ALPHA,
    )


def _bayes(base_rate: float, tpr: float | None, fpr: float) -> float:
    """P(fires | yes) by Bayes' rule; 0 for a judge that never says yes."""
    assert tpr is not None
    yes = base_rate * tpr + (1 - base_rate) * fpr
    return base_rate * tpr / yes if yes > 0 else 0.0
