"""Restores into places where something is in the way: proved before anything is decided."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from backing_up import held, sound
from serving import Server, command
from tenancy import cli
from test_backup import FIRST, data, dest
from test_doctor import doctor
from test_restore import moved_on

from botwire_server.store import swap
from botwire_server.store.backups import restore_everything
from botwire_server.store.places import Directory

__all__ = ["data", "dest", "moved_on"]  # fixtures


@contextlib.contextmanager
def mounted(source: Path, at: Path) -> Iterator[None]:
    """Something at a place of its own; skips where that is not allowed."""
    done = subprocess.run(["mount", "--bind", source, at], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", at], check=True)


@contextlib.contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Something that nobody may remove, root neither."""
    if subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("the file system knows no immutable files, or this is not root")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-R", "-i", _data(path)], check=True)  # it may have moved


@pytest.fixture
def undone() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _data(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.name == "data")


def as_mount(path: Path, undone: ExitStack) -> None:
    """What is there, on a mount of its own."""
    elsewhere = _data(path).with_name(f"source-of-{path.name}")
    path.rename(elsewhere)
    path.mkdir() if elsewhere.is_dir() else path.touch()

    def back() -> None:
        path.rmdir() if path.is_dir() else path.unlink()
        elsewhere.rename(path)

    undone.callback(back)
    undone.enter_context(mounted(elsewhere, path))


def as_link(path: Path, undone: ExitStack) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def as_immutable(path: Path, undone: ExitStack) -> None:
    undone.enter_context(immutable(path))


@pytest.mark.parametrize(
    ("what", "how"),
    [
        *(("tenants", how) for how in (as_mount, as_link, as_immutable)),
        *(("control.db", how) for how in (as_mount, as_link, as_immutable)),
        ("tenants/*", as_mount),
    ],
)
def test_what_cannot_be_moved_is_seen_before_anything_is_built(moved_on, dest, undone, what, how):
    path = next(moved_on.glob(what))
    before = held(moved_on)
    how(path, undone)
    said = cli(moved_on, "restore", str(dest), "--yes", expect=1).stderr
    assert "Nothing was restored" in said and path.name in said and "--data-dir" in said
    assert not (moved_on / ".restore").exists()
    if how is not as_immutable:  # which cannot be written either
        assert held(moved_on) == before
    undone.close()
    assert held(moved_on) == before


def test_one_that_is_mounted_whole_is_restored(moved_on, dest, undone):
    """As a container has it."""
    as_mount(moved_on, undone)
    cli(moved_on, "restore", str(dest), "--yes")
    assert held(moved_on) == FIRST
    sound(moved_on)


def decided(data: Path, dest: Path, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
    """A restore that was killed after it was decided, and after so many moves."""
    move, left = swap._move, [after]

    def dying(path: Path, to: Path) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        move(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(swap, "_move", dying)
        with pytest.raises(KeyboardInterrupt):
            restore_everything(
                Directory(dest), data, generation=None, progress=lambda done, total: None
            )
    assert swap.is_due(data)


def told_of_restores(data: Path) -> str:
    found = doctor("--data-dir", str(data))["findings"]
    return " ".join(
        f"{each['says']} {each['remedy']}" for each in found if each["what"] == "restore"
    )


@pytest.mark.parametrize("how", [as_mount, as_immutable])
@pytest.mark.parametrize("begin", ["serve", "command"])
def test_a_decided_restore_that_cannot_be_finished_is_put_back(
    moved_on, dest, undone, monkeypatch, make_server, how, begin
):
    before = held(moved_on)
    decided(moved_on, dest, monkeypatch)
    assert "finished then" in told_of_restores(moved_on)
    how(moved_on / "tenants", undone)
    if how is as_mount:
        assert "puts back" in told_of_restores(moved_on)
    if begin == "serve":
        server: Server = make_server(started=False)
        server.data = moved_on
        server.start()
        assert httpx.get(f"{server.url}/ready").status_code == 200
        server.stop()
        said = server.log
    else:
        done = subprocess.run(
            **command("tenants", "list", "--data-dir", str(moved_on)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 and "acme" in done.stdout
        said = done.stderr
    assert "could not be finished" in said and "--data-dir" in said, said
    assert "Traceback" not in said
    undone.close()
    assert not told_of_restores(moved_on)
    assert held(moved_on) == before
    sound(moved_on)


@pytest.mark.parametrize("after", range(6))
def test_it_is_put_back_from_every_step(moved_on, dest, monkeypatch, after):
    before = held(moved_on)
    move, left = swap._move, [after]

    def failing(path: Path, to: Path) -> None:
        if path.exists() and not left[0]:
            left[0] = -1
            raise OSError(16, "busy", str(path))
        if path.exists():
            left[0] -= 1
        move(path, to)

    monkeypatch.setattr(swap, "_move", failing)
    said = cli(moved_on, "restore", str(dest), "--yes", expect=0 if after > 3 else 1).stderr
    monkeypatch.undo()
    if after <= 3:
        assert "could not be finished" in said
    assert held(moved_on) == (FIRST if after > 3 else before)
    sound(moved_on)


def test_what_is_replaced_and_cannot_be_removed_stops_nobody(moved_on, dest, undone, make_server):
    file = next(moved_on.glob("tenants/*/*.db"))
    as_immutable(file, undone)
    cli(moved_on, "restore", str(dest), "--yes")
    [kept] = swap.replaced(moved_on)
    assert str(kept) in told_of_restores(moved_on) and "rm -r" in told_of_restores(moved_on)
    server: Server = make_server(started=False)
    server.data = moved_on
    server.start()
    server.stop()
    assert f"{kept} cannot be removed" in server.log
    # Another restore is not in its way.
    cli(moved_on, "restore", str(dest), "--yes")
    undone.close()
    server.start()
    server.stop()
    assert not swap.replaced(moved_on) and not told_of_restores(moved_on)
    assert held(moved_on) == FIRST
    sound(moved_on)


def test_an_old_tree_that_a_killed_restore_left_stops_nobody(moved_on, dest, undone, monkeypatch):
    clear = swap._clear
    monkeypatch.setattr(swap, "_clear", lambda data_dir, place: None)
    cli(moved_on, "restore", str(dest), "--yes")
    monkeypatch.setattr(swap, "_clear", clear)
    as_immutable(next((moved_on / ".restore" / "old").glob("tenants/*/*.db")), undone)
    assert held(moved_on) == FIRST
    undone.close()
    assert held(moved_on) == FIRST
    sound(moved_on)


def test_room_is_asked_for_before_anything_is_built(moved_on, dest, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", small],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        said = cli(small, "restore", str(dest), "--yes", expect=1).stderr
        assert "MB are free" in said and "Nothing was changed" in said
        assert {path.name for path in small.iterdir()} <= {"lock"}
    finally:
        subprocess.run(["umount", "-l", small], check=True)


# What was begun and cannot be removed.


@pytest.fixture
def stuck(moved_on, undone) -> Path:
    """A namespace's file that cannot be removed until `undone` is closed."""
    [file] = [each for each in moved_on.glob("tenants/*/*.db") if each.name.startswith("west-")]
    as_immutable(file.parent, undone)
    return file


def test_a_purge_that_cannot_be_finished_ends_and_stops_no_start(
    moved_on, stuck, undone, make_server
):
    said = cli(moved_on, "tenants", "purge", "acme", "--yes", expect=1, process=True).stderr
    assert "cannot be removed" in said and "goes on" in said
    assert stuck.exists()
    for _ in range(2):
        done = cli(moved_on, "tenants", "list", process=True)
        assert "acme" not in done.stdout and "cannot be removed" in done.stderr
    server: Server = make_server(started=False)
    server.data = moved_on
    server.start()
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/ready").status_code == 200
    assert "cannot be removed" in server.log
    undone.close()
    server.restart()
    server.stop()
    assert not stuck.exists()
    sound(moved_on)


def test_a_replaced_file_that_cannot_be_removed_ends_a_restore(moved_on, dest, stuck, undone):
    # The files of the tenant lie in a directory that nothing can be made in either.
    undone.close()
    as_immutable(stuck, undone)
    done = cli(moved_on, "restore", str(dest), "--tenant", "acme", "--yes", process=True)
    assert "not everything that it replaces could be removed" in done.stderr
    undone.close()
    cli(moved_on, "tenants", "list")
    assert held(moved_on)["acme"] == FIRST["acme"]
    sound(moved_on)
