"""Sealed folders: every changed, missing or extra byte is found."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saeops.errors import FolderDamaged, FormatUnknown, StageMissing
from saeops.files import publish_folder, write_atomic
from saeops.sealed import MANIFEST, Sealed, kept, open_sealed, seal, verify


def make(folder: Path) -> Sealed:
    write_atomic(folder / "a.bin", b"hello")
    write_atomic(folder / "sub" / "b.bin", bytes(range(64)))
    return seal(folder, kind="thing", version=1, inputs={"x": 1}, summary={"n": 2})


def test_an_intact_folder_verifies_and_keeps_its_digest(tmp_path: Path) -> None:
    sealed = make(tmp_path / "one")
    assert verify(tmp_path / "one", kind="thing").digest == sealed.digest
    assert make(tmp_path / "two").digest == sealed.digest


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_single_changed_byte_is_found(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "thing"
    make(folder)
    victim = folder / data.draw(st.sampled_from(["a.bin", "sub/b.bin", MANIFEST]))
    good = victim.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    victim.write_bytes(bad)
    with pytest.raises((FolderDamaged, FormatUnknown)):
        verify(folder, kind="thing")


def test_truncated_missing_and_extra_files_are_named(tmp_path: Path) -> None:
    for spoil, name in (
        (lambda f: (f / "a.bin").write_bytes(b"hell"), "a.bin"),
        (lambda f: (f / "a.bin").unlink(), "a.bin"),
        (lambda f: (f / "new.bin").write_bytes(b""), "new.bin"),
    ):
        folder = tmp_path / name.replace(".", "") / str(id(spoil))
        make(folder)
        spoil(folder)
        with pytest.raises(FolderDamaged, match=name):
            open_sealed(folder, kind="thing")


def test_an_unsealed_folder_names_the_command_that_makes_it(tmp_path: Path) -> None:
    (tmp_path / "half.bin").write_bytes(b"x")
    with pytest.raises(StageMissing, match="saeops harvest"):
        open_sealed(tmp_path, kind="activations", made_by="saeops harvest")


def test_another_kind_of_folder_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(FolderDamaged, match="holds thing, not sae"):
        open_sealed(tmp_path, kind="sae")


def test_a_folder_is_kept_only_for_the_same_inputs(tmp_path: Path) -> None:
    make(tmp_path)
    assert kept(tmp_path, kind="thing", inputs={"x": 1}) is not None
    assert kept(tmp_path, kind="thing", inputs={"x": 2}) is None
    assert kept(tmp_path / "none", kind="thing", inputs={"x": 1}) is None


def test_a_damaged_folder_of_the_same_inputs_is_never_replaced_silently(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"jello")
    with pytest.raises(FolderDamaged):
        kept(tmp_path, kind="thing", inputs={"x": 1})


def test_publishing_replaces_the_old_folder_whole(tmp_path: Path) -> None:
    make(tmp_path / "out")
    new = tmp_path / ".work"
    write_atomic(new / "c.bin", b"new")
    seal(new, kind="thing", version=1, inputs={"x": 2}, summary={})
    publish_folder(new, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["c.bin", MANIFEST]
    assert not new.exists()
