"""Sites: where in a transformer activations are read and replaced, found by structure.

A site's value is what the block adds to the residual stream (`attn_out`, `mlp_out`), the stream
after the block (`resid_post`), or the input of the MLP's down projection (`mlp_hidden`). Models
whose blocks normalise a branch's output before adding it (Gemma 2 and 3) are read after that norm.

# B window, W position in a window, D width of the input, E width of the target
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from saeops.errors import SiteUnknown
from saeops.refs import SiteKind, parse_site

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
MLP = ("mlp", "feed_forward", "ffn")
DOWN = ("down_proj", "c_proj", "dense_4h_to_h", "fc_out", "fc2", "w2")
ATTENTION_POST_NORM = ("post_attention_layernorm",)
MLP_POST_NORM = ("post_feedforward_layernorm",)
FINAL_NORM = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
KINDS: tuple[SiteKind, ...] = ("resid_post", "attn_out", "mlp_out", "mlp_hidden")

Edit = Callable[[Tensor], Tensor]
"""What replaces one site's activations during a forward pass."""
PairEdit = Callable[[Tensor, Tensor], Tensor]
"""(x_BWD, y_BWE) → y_BWE: what replaces the target site's activations, given those at both sites."""


@dataclass(frozen=True)
class Sites:
    """Where an SAE reads, and where what it gives back belongs."""

    input: str
    target: str

    @classmethod
    def of(cls, site: str, target_site: str | None) -> "Sites":
        """No target site: an autoencoder, which gives back what it reads."""
        return cls(site, target_site or site)

    @property
    def transcodes(self) -> bool:
        """Whether the target is another site than the input."""
        return self.target != self.input

    def __str__(self) -> str:
        return f"{self.input} → {self.target}" if self.transcodes else self.input

    def edits(self, edit: PairEdit) -> dict[str, Edit]:
        """The edits of one forward pass that let `edit` see the input site and change the target site.

        The input site must come first in the pass; it is only looked at.
        """
        if not self.transcodes:
            return {self.target: lambda x_BWD: edit(x_BWD, x_BWD)}
        seen: list[Tensor] = []

        def look(x_BWD: Tensor) -> Tensor:
            # A copy: later modules may write into this memory.
            seen.append(x_BWD.clone())
            return x_BWD

        return {self.input: look, self.target: lambda y_BWE: edit(seen.pop(), y_BWE)}


@dataclass(frozen=True)
class Place:
    """A module and the side of it where a site's value passes."""

    module: nn.Module
    side: Literal["input", "output"]


@dataclass(frozen=True)
class Structure:
    """A transformer's blocks and final norm."""

    path: str
    """Dotted path of the list of blocks, e.g. `model.layers`."""
    blocks: nn.ModuleList
    final_norm: nn.Module


def find_structure(model: nn.Module) -> Structure:
    """The longest list of blocks that each hold an attention and an MLP, and the norm after it.

    Raises:
        SiteUnknown: the model has no such list; its modules are listed.
    """
    best: Structure | None = None
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or not all(_is_block(block) for block in module):
            continue
        parent = model.get_submodule(path.rpartition(".")[0])
        norm = _child(parent, FINAL_NORM)
        if norm is not None and len(module) > (0 if best is None else len(best.blocks)):
            best = Structure(path, module, norm)
    if best is None:
        raise SiteUnknown(
            f"{type(model).__name__} has no list of blocks with attention and MLP followed by a norm;"
            f" its modules: {_outline(model)}",
            hint="Llama-, GPT-2-, GPT-NeoX- and Gemma-style models are read",
        )
    return best


def resolve(structure: Structure, site: str) -> Place:
    """Where a site's value passes.

    Raises:
        SiteUnknown: not a site's name, no such block, or a block without that part; what there is is listed.
    """
    try:
        number, kind = parse_site(site)
    except ValueError as error:
        raise SiteUnknown(str(error), hint=_offer(structure)) from error
    if number >= len(structure.blocks):
        count = len(structure.blocks)
        raise SiteUnknown(f"{site}: this model has {count} blocks, 0 to {count - 1}", hint=_offer(structure))
    block = structure.blocks[number]
    found = _part(block, kind)
    if found is None:
        modules = ", ".join(name for name, _ in block.named_modules() if name)
        raise SiteUnknown(
            f"{site}: {structure.path}.{number} ({type(block).__name__}) has no module for {kind};"
            f" its modules: {modules}",
            hint="choose another kind of site, e.g. resid_post",
        )
    side: Literal["input", "output"] = "input" if kind == "mlp_hidden" else "output"
    return Place(found, side)


def hidden_of(output: Any) -> Tensor:
    """The hidden states in a block's or attention's output, which may be a tuple."""
    hidden = output[0] if isinstance(output, tuple | list) else output
    assert isinstance(hidden, Tensor)
    return hidden


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """The same output with other hidden states in it."""
    return (hidden, *output[1:]) if isinstance(output, tuple | list) else hidden


def _is_block(module: nn.Module) -> bool:
    return _child(module, ATTENTION) is not None and _child(module, MLP) is not None


def _child(module: nn.Module, names: Sequence[str]) -> nn.Module | None:
    children = dict(module.named_children())
    return next((children[name] for name in names if name in children), None)


def _part(block: nn.Module, kind: SiteKind) -> nn.Module | None:
    # A norm after the MLP tells that both branches are normalised before they are added:
    # `post_attention_layernorm` alone is, in Llama and NeoX, the norm before the MLP.
    post_norm = _child(block, MLP_POST_NORM)
    match kind:
        case "resid_post":
            return block
        case "attn_out":
            attention = _child(block, ATTENTION)
            return attention if post_norm is None else _child(block, ATTENTION_POST_NORM) or attention
        case "mlp_out":
            return post_norm or _child(block, MLP)
        case "mlp_hidden":
            mlp = _child(block, MLP)
            return None if mlp is None else _child(mlp, DOWN)


def _offer(structure: Structure) -> str:
    last = len(structure.blocks) - 1
    return f"sites here: blocks.<0…{last}>.<{'|'.join(KINDS)}>"


def _outline(model: nn.Module) -> str:
    names = [
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if 0 < name.count(".") + 1 <= 3
    ]
    shown = ", ".join(name for name in names[1:41])
    return shown + (", …" if len(names) > 41 else "")
