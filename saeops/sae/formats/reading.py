"""Reading foreign files with suspicion: nothing is unpickled, and all faults of a folder are told at once."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from saeops.errors import ForeignFormat

UNPICKLING = "holds more than plain arrays: reading it would run code of whoever made it (unpickling)"


class ForeignConfig(BaseModel):
    """What matters of a foreign config; keys that decide nothing here are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


Config = TypeVar("Config", bound=ForeignConfig)


def refusing(reasons: Mapping[object, str]) -> BeforeValidator:
    """Refuse values that are known, with the reason why no canonical SAE can do the same."""

    def check(value: object) -> object:
        reason = reasons.get(value) if isinstance(value, str | bool) else None
        if reason is not None:
            raise ValueError(f"{value!r} cannot be held: {reason}")
        return value

    return BeforeValidator(check)


class Faults:
    """What is wrong with a folder (or an SAE), gathered until somebody asks."""

    def __init__(self, subject: Path | str, format: str) -> None:
        self._subject, self._format = subject, format
        self._found: list[tuple[str, str]] = []

    def add(self, where: str, what: str) -> None:
        """One fault; `where` is a file and the tensor or key in it."""
        self._found.append((where, what))

    def error(self) -> ForeignFormat:
        """All that was found, as one error."""
        return ForeignFormat(self._found, source=f"{self._subject} as {self._format}")

    def stop(self) -> None:
        """Go on only if nothing was found.

        Raises:
            ForeignFormat: with every fault.
        """
        if self._found:
            raise self.error()


def read_config(path: Path, model: type[Config], faults: Faults) -> Config | None:
    """A JSON config that fits `model`; None after faults."""
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        faults.add(path.name, _unreadable(error))
    except ValidationError as error:
        for each in error.errors():
            where = ": ".join([path.name, ".".join(map(str, each["loc"]))]).removesuffix(": ")
            faults.add(where, _what(each["type"], each["msg"], each["input"]))
    return None


def read_safetensors(path: Path, faults: Faults) -> dict[str, Tensor]:
    """Tensors by name; none after a fault."""
    try:
        tensors = load_file(path)
    except OSError as error:
        faults.add(path.name, _unreadable(error))
        return {}
    except SafetensorError as error:
        faults.add(path.name, f"no safetensors file ({error})")
        return {}
    if not tensors:
        faults.add(path.name, "holds no tensor")
    return tensors


def read_torch(path: Path, faults: Faults) -> dict[str, Tensor]:
    """The state dict of a `.pt` file, tensors only; none after a fault."""
    try:
        if not zipfile.is_zipfile(path):
            path.open("rb").close()
            faults.add(path.name, f"no file of torch.save since torch 1.6; a bare pickle {UNPICKLING}")
            return {}
        # Refuses every pickle opcode that would import or call anything but tensors' own building blocks.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        faults.add(path.name, _unreadable(error))
        return {}
    except Exception as error:  # The unpickler raises almost anything on bytes that are not as they should be.
        faults.add(path.name, f"{UNPICKLING}, or is damaged ({_first_line(error)})")
        return {}
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        faults.add(path.name, "no state dict: a mapping of names to tensors belongs there")
        return {}
    return {str(name): value for name, value in state.items()}


def read_npz(path: Path, faults: Faults) -> dict[str, Tensor]:
    """The arrays of an `.npz` file; none after a fault."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                faults.add(path.name, "a single array, no .npz archive")
                return {}
            return {name: _array(archive, name, path, faults) for name in archive.files}
    except OSError as error:
        faults.add(path.name, _unreadable(error))
    except Exception as error:  # numpy and zipfile raise a dozen kinds on bytes that are not as they should be.
        faults.add(path.name, f"no .npz archive of plain arrays ({_first_line(error)})")
    return {}


def _array(archive: Any, name: str, path: Path, faults: Faults) -> Tensor:
    try:
        array = archive[name]
    except Exception as error:  # As above.
        what = UNPICKLING if "pickle" in str(error) else f"cannot be read ({_first_line(error)})"
        faults.add(f"{path.name}: {name}", what)
        return torch.empty(0)
    if array.dtype.kind != "f":
        faults.add(f"{path.name}: {name}", f"is {array.dtype}, not a floating-point type")
        return torch.empty(0)
    return torch.from_numpy(array)


def as_float32(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], file: str, faults: Faults
) -> dict[str, Tensor]:
    """Exactly the tensors of `shapes`, in fp32; missing, extra, misshapen and non-finite ones are faults."""
    checked = {}
    for name in sorted(shapes.keys() | tensors.keys()):
        if name not in tensors:
            faults.add(f"{file}: {name}", f"missing; {list(shapes[name])} belongs there")
        elif name not in shapes:
            faults.add(f"{file}: {name}", f"no tensor of this architecture, which has {', '.join(shapes)}")
        elif tuple(tensors[name].shape) != shapes[name]:
            faults.add(f"{file}: {name}", f"is {list(tensors[name].shape)}, not {list(shapes[name])}")
        elif not tensors[name].is_floating_point():
            faults.add(f"{file}: {name}", f"is {tensors[name].dtype}, not a floating-point type")
        else:
            checked[name] = tensors[name].float()
            if not checked[name].isfinite().all():
                faults.add(f"{file}: {name}", "holds NaN or infinity (in float32)")
    return checked


def sides_of(tensors: Mapping[str, Tensor], name: str, file: str, faults: Faults) -> tuple[int, int] | None:
    """The two sides of a matrix, where no config tells them; None after a fault."""
    matrix = tensors.get(name)
    if matrix is None or matrix.dim() != 2 or 0 in matrix.shape:
        found = "missing" if matrix is None else f"is {list(matrix.shape)}"
        faults.add(f"{file}: {name}", f"{found}; a matrix belongs there")
        return None
    return matrix.shape[0], matrix.shape[1]


def _what(kind: str, message: str, value: object) -> str:
    """pydantic's words, in the voice of the other faults."""
    if kind == "missing":
        return "missing"
    if kind in ("value_error", "json_invalid"):
        return message.removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]} (got {value!r})"


def _unreadable(error: OSError) -> str:
    return "missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
