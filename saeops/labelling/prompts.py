"""What a language model is asked, as plain text. The tokens that count stand between « and »."""

from collections.abc import Sequence

from saeops.labelling.examples import Context, Snippet
from saeops.labelling.words import Spell

MARK_ABOVE = 0.3
"""A token counts as firing above this share of the context's strongest activation (as delphi does)."""

EXPLAIN_SYSTEM = "You name what marked words have in common, precisely and briefly."
EXPLAIN_PREFIX = "Label:"
JUDGE_SYSTEM = "You decide whether marked words fit a description. You answer with nothing else."


def explain_prompt(contexts: Sequence[Context], spell: Spell) -> str:
    """Contexts with their firing tokens marked, the chosen ones as a list, and what is asked."""
    lines = [f"{i}. {marked_context(context, spell)}" for i, context in enumerate(contexts, 1)]
    words = dict.fromkeys(_plain(spell(context.tokens)[context.at]).strip() for context in contexts)
    return (
        "In each text below, some words stand between « and ».\n\n"
        + "\n".join(lines)
        + f"\n\nThe marked words: {', '.join(word for word in words if word)}\n\n"
        "What kind of words are these: which word, meaning, or place in the text do they share? "
        "Answer in one line of at most ten words: `Label: …`"
    )


def detect_prompt(label: str, snippets: Sequence[Snippet], spell: Spell) -> str:
    """Several snippets at once, for verdicts as one JSON list."""
    lines = [f"{i}. {marked_snippet(snippet, spell)}" for i, snippet in enumerate(snippets, 1)]
    return (
        f"Description: {label}\n\n"
        "For each text, does the word between « and » fit the description?\n\n"
        + "\n".join(lines)
        + f"\n\nAnswer with one JSON list of {len(snippets)} numbers, 1 for yes and 0 for no, in order: [1, 0, …]"
    )


def lean_prompt(label: str, snippet: Snippet, spell: Spell) -> str:
    """One snippet, for one word: yes or no. What all snippets share comes first, so a model reads it once."""
    return (
        "Does the word between « and » fit the description? Answer Yes or No.\n"
        f"Description: {label}\n"
        f"Text: {marked_snippet(snippet, spell)}"
    )


def marked_context(context: Context, spell: Spell) -> str:
    """A context on one line, each run of firing tokens between « and »."""
    limit = MARK_ABOVE * max(context.activations)
    fires = [a > limit or i == context.at for i, a in enumerate(context.activations)]
    return _marked(spell(context.tokens), fires)


def marked_snippet(snippet: Snippet, spell: Spell) -> str:
    """A snippet on one line, the judged token between « and »."""
    return _marked(spell(snippet.tokens), [i == snippet.at for i in range(len(snippet.tokens))])


def _marked(texts: Sequence[str], fires: Sequence[bool]) -> str:
    pieces, inside = [], False
    for text, firing in zip(texts, fires, strict=True):
        if firing != inside:
            pieces.append("«" if firing else "»")
        pieces.append(_plain(text))
        inside = firing
    return "".join([*pieces, "»" if inside else ""]).strip()


def _plain(text: str) -> str:
    return text.replace("\n", "\\n")
