"""Stand-ins for modules that a peer imports at the top and that no training step uses."""

import contextlib
import io
import sys
from collections.abc import Iterator
from types import ModuleType


def stub(*names: str) -> None:
    """Let `from name import anything` succeed without the module."""
    for name in names:
        if name not in sys.modules:
            module = ModuleType(name)
            module.__getattr__ = lambda _: None  # type: ignore[method-assign]
            sys.modules[name] = module


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what a library prints."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
