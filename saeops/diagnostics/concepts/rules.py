"""The built-in concepts: ideas that ordinary and technical English holds, each a rule over the running text.

No model is asked, and the same text gives the same labels everywhere.
"""

from dataclasses import dataclass

from saeops.diagnostics.concepts.text import Rule, matching, within_word


@dataclass(frozen=True)
class Concept:
    """An idea with a rule that says where it holds."""

    name: str
    meaning: str
    rule: Rule


def _words(listed: str) -> Rule:
    """The words listed, in any case."""
    return matching(rf"\b(?i:{'|'.join(listed.split())})\b")


_KEYWORD = r"(?:import|from|def|class|return|elif|raise|yield|async) \S"
_CODE = rf">>> |\.\.\. |\$ |{_KEYWORD}|[\w.\[\]'\"]+ [-+*/|]?= |[\w.]+\(.*\)$"

CONCEPTS: tuple[Concept, ...] = (
    # What a token is made of.
    Concept("digit", "a digit", matching(r"\d")),
    Concept("capitalised", "a word with a capital first", matching(r"\b[A-Z][a-z]+\b")),
    Concept("all_caps", "a word of capitals, two at least", matching(r"\b[A-Z]{2,}\b")),
    Concept("word_piece", "goes on with a word that an earlier token began", within_word),
    Concept("full_stop", "a full stop that ends something", matching(r"\.(?=\s|$)")),
    Concept("comma", "a comma", matching(r",")),
    Concept("colon", "a colon", matching(r":")),
    Concept("backtick", "a backtick", matching(r"`")),
    Concept("opening_bracket", "an opening bracket of any kind", matching(r"[(\[{]")),
    Concept("newline", "a line break", matching(r"\n")),
    Concept("blank_line", "an empty line", matching(r"\n[ \t]*\n")),
    Concept("indent", "spaces in front of an indented line", matching(r"^[ \t]+(?=[ \t]\S)")),
    # Where a token stands.
    Concept("in_parentheses", "between parentheses", matching(r"\((?P<at>[^()\n]+)\)")),
    Concept("in_brackets", "between square brackets", matching(r"\[(?P<at>[^\[\]\n]+)\]")),
    Concept("in_quotes", "between double quotation marks", matching(r"\"(?P<at>[^\"\n]+)\"")),
    Concept("in_backticks", "between backticks", matching(r"(?P<ticks>`+)(?P<at>[^`\n]+)(?P=ticks)")),
    Concept("after_colon", "the word after a colon", matching(r":[ \t]+(?P<at>\w+)")),
    Concept(
        "sentence_start",
        "the first word of a sentence or paragraph",
        matching(r"(?:[.!?][\"')\]]*\s+|\n\s*\n\s*)(?P<at>[A-Z]\w*)"),
    ),
    Concept("list_item", "inside a list item", matching(r"^[ \t]*(?:[-*•+]|\d+[.)])[ \t]+(?P<at>[^\n]+)")),
    Concept("code_line", "on a line of code", matching(rf"^[ \t]*(?P<at>(?:{_CODE})[^\n]*)")),
    # What kind of name or number it is part of.
    Concept("snake_case", "part of a name_with_underscores", matching(r"\b[A-Za-z]\w*_[A-Za-z0-9]\w*")),
    Concept("camel_case", "part of a nameWithHumps", matching(r"\b(?:[a-z]+|[A-Z][a-z]+)[A-Z]\w*")),
    Concept("dotted_path", "part of a dotted.name", matching(r"\b[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")),
    Concept("url", "part of a web address", matching(r"https?://[^\s<>\"')\]]+")),
    Concept(
        "file_path",
        "part of a path or of a file's name",
        matching(
            r"(?<![\w:/.])[~.]{0,2}(?:/[\w.-]+){2,}|\b[\w-]+\.(?:py|txt|md|rst|json|toml|ya?ml|cfg|ini|html)\b"
        ),
    ),
    Concept("version", "part of a version number", matching(r"\bv?\d+(?:\.\d+)+\w*")),
    Concept("markup_tag", "part of a tag of HTML or XML", matching(r"</?[A-Za-z][^<>\n]*>")),
    # What a word does in its sentence.
    Concept("article", "an article", _words("the a an")),
    Concept(
        "preposition", "a preposition", _words("of in on at by for with from to into over under between about")
    ),
    Concept("conjunction", "a conjunction that joins equals", _words("and or but")),
    Concept(
        "pronoun", "a personal or possessive pronoun", _words("i you he she it we they him its your their our")
    ),
    Concept("wh_word", "a question word or relative pronoun", _words("what which who whose when where why how")),
    Concept("modal", "a modal verb", _words("can could may might must shall should will would")),
    Concept("to_be", "a form of to be", _words("is are was were be been being")),
    Concept("negation", "a negation", _words("not no never nor cannot without don't doesn't isn't")),
    Concept(
        "number_word", "a number in words", _words("one two three four five six ten hundred first second third")
    ),
    # How a word ends.
    Concept("ending_ing", "the end of a word in -ing", matching(r"\b[A-Za-z]{2,}(?P<at>ing)\b")),
    Concept("ending_ed", "the end of a word in -ed", matching(r"\b[A-Za-z]{2,}(?P<at>ed)\b")),
    Concept(
        "ending_s", "the end of a word in -s, as plurals have it", matching(r"\b[A-Za-z]{3,}(?<![isu])(?P<at>s)\b")
    ),
    Concept("ending_ly", "the end of a word in -ly", matching(r"\b[A-Za-z]{3,}(?P<at>ly)\b")),
)
"""Looked for on every token; a concept too rare in a text is left out there, and the table says so."""

NAMES = tuple(concept.name for concept in CONCEPTS)
