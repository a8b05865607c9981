"""A forward pass that begins at a block: what the blocks before it make of some windows, computed once.

# B window, W position in a window, D d_model
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from saeops.activations.sites import Structure, hidden_of, with_hidden


class Enough(Exception):
    """Ends a forward pass once everything needed was seen."""


@dataclass(frozen=True)
class Prefix:
    """What enters a block, in a pass over some windows that nothing was edited in."""

    before: Sequence[nn.Module]
    """The blocks that need not run again."""
    block: nn.Module
    hidden: Float[Tensor, "B W D"]
    outputs: Sequence[Any]
    """An output of each block before, with the hidden states left out: what shape theirs have."""

    @classmethod
    def of(cls, structure: Structure, first: int, run: Callable[[], object]) -> "Prefix":
        """Run a pass (any that goes through the blocks) as far as block `first`."""
        before, block = list(structure.blocks[:first]), structure.blocks[first]
        entered: list[Tensor] = []
        outputs: list[Any] = []

        def stop(_module: nn.Module, args: Any, kwargs: Any) -> None:
            # A copy: later modules may write into this memory.
            entered.append(_entering(args, kwargs).clone())
            raise Enough

        def note(_module: nn.Module, _args: Any, output: Any) -> None:
            outputs.append(with_hidden(output, hidden_of(output)[:0]))

        handles = [module.register_forward_hook(note) for module in before]
        handles.append(block.register_forward_pre_hook(stop, with_kwargs=True))
        try:
            with contextlib.suppress(Enough):
                run()
        finally:
            for handle in handles:
                handle.remove()
        return cls(before, block, entered[0], outputs)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Passes in this block skip the blocks before, and enter this one with what they made."""
        for module, output in zip(self.before, self.outputs, strict=True):
            module.forward = _passing(output)
        handle = self.block.register_forward_pre_hook(self._enter, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            for module in self.before:
                # The class's own shows again.
                del module.forward

    def _enter(self, _module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        hidden = self.hidden.clone()
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})


def _entering(args: Any, kwargs: Any) -> Tensor:
    hidden = args[0] if args else kwargs["hidden_states"]
    assert isinstance(hidden, Tensor)
    return hidden


def _passing(output: Any) -> Callable[..., Any]:
    """A block that gives back what enters it."""
    return lambda *args, **kwargs: with_hidden(output, _entering(args, kwargs))
