"""From a recipe to its contender; a peer is imported when it is asked for."""

from torch import Tensor

from benchmarks.contender import Contender
from benchmarks.recipe import Problem, Recipe


def build(problem: Problem, recipe: Recipe, sample_TD: Tensor) -> Contender:
    """One library ready for its first step.

    Args:
        sample_TD: raw activations from which it may estimate a scale.
    """
    match recipe.library:
        case "ours":
            from benchmarks.ours import Ours

            return Ours(problem, recipe, sample_TD)
        case "saelens":
            from benchmarks.peers.saelens import SaeLens

            return SaeLens(problem, recipe, sample_TD)
        case "sparsify":
            from benchmarks.peers.sparsify import Sparsify

            return Sparsify(problem, recipe, sample_TD)
        case "dictionary_learning":
            from benchmarks.peers.dictionary_learning import DictionaryLearning

            return DictionaryLearning(problem, recipe, sample_TD)
        case "overcomplete":
            from benchmarks.peers.overcomplete import Overcomplete

            return Overcomplete(problem, recipe, sample_TD)
        case _:
            raise ValueError(recipe.library)
