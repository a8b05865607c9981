from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from saeops.errors import PanelInvalid
from saeops.interventions.panel import PanelItem, parse_panel, read_panel, score_item

SHIPPED = Path(__file__).parents[2] / "saeops" / "interventions" / "panel.yaml"


def item(**changes: Any) -> dict[str, Any]:
    good = {
        "id": "a", "topic": "t", "prompt": "The sky is",
        "should_move": [" blue"], "should_not_move": [" the"],
    }  # fmt: skip
    return {k: v for k, v in (good | changes).items() if v is not None}


def parse(*items: Any) -> Any:
    return parse_panel({"version": 1, "items": list(items)}, source="test.yaml")


def test_the_committed_panel_has_four_prompts_of_each_of_six_topics() -> None:
    panel = read_panel(SHIPPED)
    assert Counter(item.topic for item in panel.items) == dict.fromkeys(
        ("geography", "science", "code", "feeling", "numbers", "people"), 4
    )
    assert all(item.id.startswith(item.topic) for item in panel.items)


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (item(topic=None), "a: topic is missing"),
        (item(colour="red"), "a: colour is no field"),
        (item(prompt="  "), "a: prompt must be a text"),
        (item(id=7), "item 1: id must be a text"),
        (item(should_move=[]), "a: should_move must list at least one"),
        (item(should_move=[" blue", ""]), "a: should_move holds '', which is empty"),
        (item(should_not_move=["  "]), "which is empty"),
        (item(should_not_move=[3]), "should_not_move holds 3"),
        (item(should_move="blue"), "should_move must list"),
        (item(should_move=[" blue", " blue"]), "names a continuation twice"),
        (item(should_not_move=[" the", " blue"]), "' blue' should move and should not move"),
        ("just text", "item 1: must have fields"),
    ],
)
def test_a_bad_item_is_named_with_its_fault(bad: Any, complaint: str) -> None:
    with pytest.raises(PanelInvalid, match=complaint):
        parse(bad)


def test_all_faults_of_a_panel_are_named_at_once() -> None:
    with pytest.raises(PanelInvalid) as caught:
        parse(item(), item(prompt=""), item(id="b", topic=None, should_move=[]))
    message = str(caught.value)
    assert message.startswith("4 faults in test.yaml")
    for fault in ("a: prompt", "b: topic is missing", "b: should_move", "a: 2 items have this id"):
        assert fault in message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- a\n- b\n", "must hold `version` and `items`"),
        ("version: 2\nitems: []\n", "2 faults"),
        ("items: [\n", "not YAML"),
        ("", "must hold"),
    ],
)
def test_a_file_that_is_no_panel_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "panel.yaml").write_text(text)
    with pytest.raises(PanelInvalid, match=complaint):
        read_panel(tmp_path / "panel.yaml")


def test_no_panel_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PanelInvalid, match=r"no panel at .*nowhere"):
        read_panel(tmp_path / "nowhere.yaml")


def test_comments_do_not_change_a_panels_digest() -> None:
    plain = yaml.safe_load(SHIPPED.read_text())
    assert parse_panel(plain, source="x").digest() == read_panel(SHIPPED).digest()
    plain["items"][0]["prompt"] += " is"
    assert parse_panel(plain, source="x").digest() != read_panel(SHIPPED).digest()


def test_continuations_that_begin_with_the_same_token_are_not_compared() -> None:
    def letters(text: str) -> list[int]:
        return [ord(letter) for letter in text]

    told_apart = score_item(PanelItem("a", "t", "ab", ("cd", "ce", "x"), ("y",)), letters)
    assert (told_apart.ids, told_apart.move, told_apart.stay) == ((97, 98), (ord("c"), ord("x")), (ord("y"),))
    same = score_item(PanelItem("a", "t", "ab", ("cd",), ("cx",)), letters)
    assert (same.ids, same.move, same.stay) == ((97, 98), (), ())
