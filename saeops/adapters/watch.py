"""How a person follows a stage: bars on a terminal, lines in a log, metrics in the tracker."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from saeops.ports import Bar

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Recorder(Protocol):
    """The part of a tracker's run that a stage may reach."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None: ...

    def figure(self, name: str, figure: "Figure") -> None: ...

    def file(self, path: Path) -> None: ...


class _Rate(ProgressColumn):
    """Units done a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed else "", style="cyan")


class _TerminalBar:
    def __init__(self, progress: Progress, task: int) -> None:
        self._progress, self._task = progress, task

    def advance(self, amount: float = 1, **facts: str) -> None:
        shown = {"facts": "  ".join(f"{k} {v}" for k, v in facts.items())} if facts else {}
        self._progress.update(self._task, advance=amount, **shown)  # type: ignore[arg-type]


class _LogBar:
    """A line now and then, where there is no terminal to draw a bar on."""

    def __init__(self, say: Callable[[str], None], title: str, total: float, unit: str, every_s: float) -> None:
        self._say, self._title, self._total, self._unit = say, title, total, unit
        self._every_s = every_s
        self._done = 0.0
        self._started = self._last = time.monotonic()

    def advance(self, amount: float = 1, **facts: str) -> None:
        self._done += amount
        now = time.monotonic()
        if now - self._last < self._every_s and self._done < self._total:
            return
        self._last = now
        rate = self._done / max(now - self._started, 1e-9)
        left = (self._total - self._done) / rate if rate else 0
        tail = "".join(f"  {k} {v}" for k, v in facts.items())
        self._say(
            f"{self._title}: {100 * self._done / max(self._total, 1):3.0f} %  "
            f"{rate:,.0f} {self._unit}/s  {left:.0f} s left{tail}"
        )


class TerminalWatch:
    """Bars and lines for people, everything else to the recorder."""

    def __init__(self, recorder: Recorder, console: Console | None = None, *, log_every_s: float = 10) -> None:
        self._recorder = recorder
        self._console = console or Console(stderr=True)
        self._log_every_s = log_every_s

    @contextmanager
    def bar(self, title: str, total: float, unit: str) -> Iterator[Bar]:
        if not self._console.is_terminal:
            yield _LogBar(self.say, title, total, unit, self._log_every_s)
            return
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f} %"),
            _Rate(),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[facts]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            yield _TerminalBar(progress, progress.add_task(title, total=total, unit=unit, facts=""))

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self._recorder.metrics(values, step)

    def figure(self, name: str, figure: "Figure") -> None:
        self._recorder.figure(name, figure)

    def file(self, path: Path) -> None:
        self._recorder.file(path)


class _QuietBar:
    def advance(self, amount: float = 1, **facts: str) -> None:
        pass


class QuietWatch:
    """The fake: shows nothing, remembers everything, for tests and for `--json`."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.logged: list[tuple[int | None, dict[str, float]]] = []
        self.figures: dict[str, Figure] = {}
        self.files: list[Path] = []

    @contextmanager
    def bar(self, title: str, total: float, unit: str) -> Iterator[Bar]:
        yield _QuietBar()

    def say(self, text: str) -> None:
        self.said.append(text)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.logged.append((step, dict(values)))

    def figure(self, name: str, figure: "Figure") -> None:
        self.figures[name] = figure

    def file(self, path: Path) -> None:
        self.files.append(path)
