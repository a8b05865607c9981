"""Results as markdown: what the command prints, and what docs/performance.md is made of."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.losses import is_ours

NAMES = {
    "topk": "TopK",
    "batch_topk": "BatchTopK",
    "matryoshka": "Matryoshka BatchTopK",
    "jumprelu": "JumpReLU",
    "relu_l1": "ReLU + L1",
    "gated": "Gated",
}


def race_table(race: Mapping[str, Any]) -> str:
    """One race: a contender a row, the fastest first, the floor last."""
    problem, floor = race["problem"], race["floor"]
    ours = [each["label"] for each in race["contenders"] if is_ours(each["label"])]
    head = ["contender", "tokens/s", "µs/token", "ms/step (range)", *[f"{label} is faster by" for label in ours]]
    head += ["step / floor", "L0 at the end", "peak memory", "clean samples"]
    rows = []
    for each in sorted(race["contenders"], key=lambda each: -each["tokens_per_second"]):
        against = [_ratio(_over(race, label, each["label"])) for label in ours]
        peak = each["peak_bytes"]
        rows.append(
            [
                f"{each['label']} ({each['version']})",
                *_speed(each),
                *against,
                _ratio(each["times_the_floor"]),
                f"{each['l0_after']:.1f}",
                f"{peak / 1e9:.2f} GB",
                _samples(each),
            ]
        )
    rows.append([f"*{_floor_name()}*", *_speed(floor), *["" for _ in ours], "1", "", "", _samples(floor)])
    condition = f": {race['condition']}" if race["condition"] else ""
    title = (
        f"### {NAMES[problem['variant']]}{condition}\n\n"
        f"D = {problem['d_model']:,}, F = {problem['d_sae']:,}, k = {problem['k']}, batch {problem['batch']:,}.\n"
    )
    return f"{title}\n{_table(head, rows)}"


def same_table(race: Mapping[str, Any]) -> str:
    """Whether all trained the same problem."""
    same = race["same"]
    head = ["contender", "reconstruction off by", "FVU", "L0"]
    rows = [["*oracle*", "0", f"{same['fvu']:.6f}", f"{same['l0']:.2f}"]]
    rows += [
        [each["label"], f"{each['error']:.1e}", f"{each['fvu']:.6f}", f"{each['l0']:.2f}"]
        for each in same["contenders"]
    ]
    return _table(head, rows)


def loss_table(rows: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Held-out FVU at equal tokens, the lowest first within a variant."""
    head = ["variant", "contender", "held-out FVU (range over seeds)", "L0", "FVU by the training path, its L0"]
    head += ["train FVU, last 20 steps", "silent latents", "seeds"]
    ordered = sorted(rows, key=lambda row: (row["variant"], row["fvu"]))
    lines = [
        [
            NAMES[row["variant"]],
            f"{row['label']} ({row['version']})",
            f"{row['fvu']:.4f} ({row['fvu_low']:.4f}–{row['fvu_high']:.4f})",
            f"{row['l0']:.1f}",
            f"{row['fvu_training_path']:.4f}, {row['l0_training_path']:.1f}",
            f"{row['train_fvu']:.4f}",
            f"{row['silent']:.1%}",
            str(row["seeds"]),
        ]
        for row in ordered
    ]
    places = {
        "below": "lies below every seed",
        "within": "lies within the seeds",
        "above": "lies above every seed",
    }
    # The best peer has the lowest mean.
    said = [
        f"- {NAMES[one['variant']]}: {one['ours']} {places[one['place']]} of the best peer, {one['best_peer']}."
        for one in verdicts
    ]
    return "\n".join([_table(head, lines), "", *said])


def planted_table(settings: Sequence[Mapping[str, Any]]) -> str:
    """Share of planted features recovered."""
    head = ["setting", "contender", "recovered (range over seeds)"]
    rows = [
        [
            one["setting"],
            f"{row['label']} ({row['version']})",
            f"{row['recovered']:.1%} ({row['low']:.1%}–{row['high']:.1%})",
        ]
        for one in settings
        for row in sorted(one["rows"], key=lambda row: -row["recovered"])
    ]
    return _table(head, rows)


def law_table(law: Mapping[str, Any]) -> str:
    """The fitted numbers."""
    symbols = {"alpha": "α", "beta": "β"}
    rows = []
    for name, value in law["values"].items():
        span = law["intervals"].get(name)
        rows.append(
            [symbols.get(name, name), f"{value:.4g}", "" if span is None else f"{span[0]:.4g}–{span[1]:.4g}"]
        )
    return _table(["", "value", "95 % bootstrap over runs"], rows)


def catalog_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """An SAE a row."""
    head = [
        "F",
        "k",
        "encoding alone, tokens/s",
        "with the catalog",
        "ratio, turn by turn",
        "to the end, tokens/s",
    ]
    head += ["ratio to the end", "contexts", "written in", "kept", "used by others meanwhile"]
    lines = [
        [
            f"{row['d_sae']:,}",
            f"{row['k']}",
            f"{row['tokens'] / row['alone_s']:,.0f}",
            f"{row['tokens'] / row['with_catalog_s']:,.0f}",
            "{median:.3f}× ({low:.3f}–{high:.3f})".format(**row["ratio"]),
            f"{row['tokens'] / (row['with_catalog_s'] + row['finishing_s']):,.0f}",
            f"{row['alone_s'] / (row['with_catalog_s'] + row['finishing_s']):.3f}×",
            f"{row['contexts']:,}",
            f"{row['writing_s']:.1f} s",
            f"{row['kept_bytes'] / 1e6:,.0f} MB",
            f"{row['foreign']:.0%} of the machine",
        ]
        for row in rows
    ]
    return _table(head, lines)


def monitor_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A kind of work a row."""
    head = ["work", "model alone, tokens/s", "watched, tokens/s", "ratio, turn by turn", "turns"]
    head += ["firings a token", "used by others meanwhile"]
    lines = [
        [
            row["work"],
            f"{row['tokens'] / row['alone_s']:,.0f}",
            f"{row['tokens'] / row['monitored_s']:,.0f}",
            "{median:.3f}× ({low:.3f}–{high:.3f})".format(**row["ratio"]),
            f"{row['ratio']['rounds']} of {row['rounds']}",
            f"{row['firings_per_token']:.2f}",
            f"{row['foreign']:.0%} of the machine",
        ]
        for row in rows
    ]
    return _table(head, lines)


def settings_list(parts: Sequence[Mapping[str, Any]]) -> str:
    """What each contender's step does."""
    seen = {(each["label"], str(each["settings"])): each for each in parts}
    lines = []
    for each in seen.values():
        said = ", ".join(f"{name} {value}" for name, value in each["settings"].items() if value is not None)
        lines.append(f"- {each['label']} ({each['version']}): {said}")
    return "\n".join(lines)


def machine_line(machine: Mapping[str, Any]) -> str:
    """One sentence on the machine."""
    return (
        f"{machine['processor']}, {machine['cores']} cores ({machine['threads']} threads used,"
        f" {machine['instructions']}), {machine['memory_gb']} GB, torch {machine['torch']},"
        f" Python {machine['python']}."
    )


def _speed(each: Mapping[str, Any]) -> list[str]:
    step = each["seconds_a_step"]
    span = f"{1e3 * step['median']:.1f} ({1e3 * step['low']:.1f}–{1e3 * step['high']:.1f})"
    return [f"{each['tokens_per_second']:,.0f}", f"{each['microseconds_a_token']:.1f}", span]


def _samples(each: Mapping[str, Any]) -> str:
    step = each["seconds_a_step"]
    return f"{step['clean']} of {step['samples']}" + ("" if step["quiet"] else ", not quiet")


def _over(race: Mapping[str, Any], ours: str, other: str) -> Mapping[str, Any] | None:
    found = next(each for each in race["contenders"] if each["label"] == ours)
    return found["over"].get(other)


def _ratio(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else f"{found['median']:.2f}× ({found['low']:.2f}–{found['high']:.2f})"


def _floor_name() -> str:
    return "bare encoder product (addmm)"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def matching_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Time, memory and gap of each piece of work, and its speed beside the dense method where that ran."""
    dense = {(row["size"], row["related"]): row["cpu_seconds"] for row in rows if row["work"] == "dense"}
    names = {"assign": "assignment", "match": "whole", "dense": "scipy, dense"}
    lines = [
        "| latents | dictionaries | work | seconds | CPU seconds | dense / this, CPU | peak memory | pairs held"
        " | solved | gap | used by others meanwhile |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        beside = dense.get((row["size"], row["related"])) if row["work"] == "assign" else None
        cells = [
            f"{row['size']:,}²",
            "related" if row["related"] else "strangers",
            names[row["work"]],
            f"{row['seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}",
            "" if beside is None else f"{beside / row['cpu_seconds']:.2f}×",
            f"{row['peak_bytes'] / 2**30:.2f} GiB",
            f"{row['candidates']:,}" if "candidates" in row else "all",
            str(row.get("rounds", "")),
            f"{row['gap']:.3g}",
            f"{row['foreign']:.0%} of the machine",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
