"""docs/performance.md, made from the JSON files of the benchmarks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import tables

INTRODUCTION = """# Performance

Made by `benchmarks/training.py` from its own measurements: do not edit by hand.

**How the race is run.** Every contender is its library's real training step with its defaults on: clipping,
decoder constraint, dead-latent counts, schedules. Each has a process of its own, as its users would give it; they
take turns on the same activations, and a sample in which others used the machine is left out. The first figure is
the median, the range is the least and the largest clean sample, a ratio is the median over rounds with a 95 %
bootstrap interval. The *floor* is the dense fp32 encoder product of the same shape in the same run: a step that
makes it cannot be faster. Ours goes under it where latents can be told apart by cheaper products
([how](decisions/compiled-kernels.md)); what it finds is still exact, unless it says `encoder=shortlist`.

**The same problem.** Before a race the same weights are put into every contender; it starts only where the same
batch then gives the same reconstruction within 1e-4 and the same error as a plain dense oracle.

**Loss at equal tokens.** The same tokens in the same order for all; FVU = 1 − EV on tokens held out by document,
read by each library's own path of inference. `library@key=value` is a library with that change from its defaults.
"""


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The whole page."""
    return "\n\n".join([INTRODUCTION.strip(), *(section(each) for each in results)]) + "\n"


def section(result: Mapping[str, Any]) -> str:
    """One command's results."""
    body = SECTIONS[result["kind"]](result)
    command = f"```sh\n{result['command']}\n```"
    return f"{body}\n\n{command}\n\n{tables.machine_line(result['machine'])}"


def _race(result: Mapping[str, Any]) -> str:
    parts, checked = ["## Speed", f"Activations: {result['tokens']}."], set()
    for race in result["races"]:
        parts.append(tables.race_table(race))
        # Checked once a variant, before its first race.
        if race["problem"]["variant"] not in checked:
            checked.add(race["problem"]["variant"])
            parts += ["The same problem:", tables.same_table(race)]
    steps = [each for race in result["races"] for each in race["contenders"]]
    return "\n\n".join([*parts, "What a step does:", tables.settings_list(steps)])


def _losses(result: Mapping[str, Any]) -> str:
    problem = result["problem"]
    title = (
        f"D = {problem['d_model']:,}, F = {problem['d_sae']:,}, k = {problem['k']}, batch {problem['batch']:,},"
        f" {result['trained_tokens']:,} tokens. Activations: {result['tokens']}."
    )
    table = tables.loss_table(result["rows"], result["verdicts"])
    settings = tables.settings_list(result["rows"])
    return "\n\n".join(["## Loss at equal tokens", title, table, "Recipes:", settings])


def _planted(result: Mapping[str, Any]) -> str:
    one = result["settings"][0]
    problem = one["problem"]
    title = (
        f"{one['n_features']:,} planted features in D = {problem['d_model']:,}, F = {problem['d_sae']:,},"
        f" {tables.NAMES[problem['variant']]} with k = {problem['k']},"
        f" {problem['steps'] * problem['batch']:,} tokens; recovered: some decoder row has cosine above 0.9."
    )
    return "\n\n".join(["## Planted features", title, tables.planted_table(result["settings"])])


def _scaling(result: Mapping[str, Any]) -> str:
    problem, law = result["problem"], result["law"]
    title = (
        f"Held-out FVU = c + a·(F/1000)^−α + b·(T/10⁶)^−β for {tables.NAMES[problem['variant']]} with k ="
        f" {problem['k']}, batch {problem['batch']:,}: {law['runs']} runs, each with a schedule of its own;"
        f" the law is off by {law['residual']:.2%} (root mean square). Activations: {result['tokens']}."
    )
    figure = f"![Held-out FVU over tokens and latents](figures/{result['figure']})"
    return "\n\n".join(["## Scaling", title, tables.law_table(law), figure])


def _catalog(result: Mapping[str, Any]) -> str:
    title = (
        f"What the catalog costs beside encoding, on {result['rows'][0]['tokens']:,} tokens: {result['tokens']}."
        " Encoding alone and encoding with the catalog take turns on the same batches, already in memory; a ratio"
        " is the time of encoding alone over that with the catalog, the median over turns with a 95 % bootstrap"
        " interval. *To the end* adds, once, the table of contexts and the neighbours; writing them checked, as"
        " parquet, is apart. Kept: what grows with the latents, and with nothing else."
    )
    saes = [f"- {row['sae']}" for row in result["rows"]]
    return "\n\n".join(["## Catalog", title, tables.catalog_table(result["rows"]), "SAEs:", "\n".join(saes)])


def _monitor(result: Mapping[str, Any]) -> str:
    title = (
        f"What `saeops.Monitor` costs the model that it watches: {result['model']} with a dictionary of"
        f" {result['sae']}, {result['trusted']} trusted features, written to parquet and counted for Prometheus."
        " The model alone and watched take turns; the ratio is watched speed over speed alone, the median over"
        " turns with a 95 % bootstrap interval."
    )
    return "\n\n".join(["## Monitor", title, tables.monitor_table(result["rows"])])


def _matching(result: Mapping[str, Any]) -> str:
    title = (
        f"What it costs to match two dictionaries of width {result['width']}: *related*, a tenth of the latents"
        " replaced and the others turned to a cosine of 0.86; *strangers*: all of them replaced. The *assignment*"
        " counts every positive cosine as a pair, which is harder than what `saeops match` solves. *Whole* is what"
        " that computes: the assignment, the permuted null and the kinds, with activations on"
        f" {result['tokens']:,} tokens, 32 latents a token. *Dense* is the product, and scipy's"
        " linear_sum_assignment on the whole matrix. Memory is the process's peak, imports included; CPU seconds"
        " are of all threads. The gap is proved by dual prices."
    )
    return "\n\n".join(["## Matching", title, tables.matching_table(result["rows"])])


SECTIONS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "race": _race,
    "losses": _losses,
    "planted": _planted,
    "scaling": _scaling,
    "catalog": _catalog,
    "monitor": _monitor,
    "matching": _matching,
}
