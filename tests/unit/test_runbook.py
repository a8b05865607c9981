"""The runbook's commands, run again: the page shows what they print."""

from pathlib import Path

from tests.runbook import PAGE, comparable, replay


def test_every_command_of_the_rollback_runbook_prints_what_the_page_shows(tmp_path: Path):
    page = PAGE.read_text()
    assert page.count("$ saeops ") > 15
    assert comparable(replay(page, tmp_path)) == comparable(page)
