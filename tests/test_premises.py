"""Where a data directory may lie, who makes one, and whose it must be."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from tenancy import cli, make_tenant, operator_of

from botwire_server.cli import cli as root
from botwire_server.errors import Unusable
from botwire_server.store import premises
from botwire_server.store.diagnosis import of_directory

SOMEBODY, GROUP = 54_321, 54_322

# What each command needs besides; `FILE` is an archive, `PLACE` a backup.
ARGUMENTS = {
    "tenants create": ["acme"],
    "tenants show": ["acme"],
    "tenants set-tier": ["acme", "pro"],
    "tenants purge": ["acme", "--yes"],
    "tenants export": ["acme", "FILE"],
    "tenants import": ["FILE"],
    "keys create": ["--operator"],
    "keys rotate": ["ID"],
    "keys revoke": ["ID"],
    "namespaces list": ["acme"],
    "namespaces purge": ["acme", "notes", "--yes"],
    "namespaces accept": ["acme", "notes", "--yes"],
    "backup": ["PLACE"],
    "backups": ["PLACE"],
    "restore": ["PLACE", "--yes"],
}
# What is asked of the machine, the settings or a destination.
LOOKS_NOWHERE = {"doctor", "backups", "config show"}
MAKES = {"serve", "restore", "tenants create", "tenants import", "keys create"}


def commands(group: click.Command, *path: str) -> Iterator[str]:
    if not isinstance(group, click.Group):
        yield " ".join(path)
        return
    for name, command in group.commands.items():
        yield from commands(command, *path, name)


REFUSING = [name for name in commands(root) if name not in {*MAKES, *LOOKS_NOWHERE}]


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """An archive and a backup of another server."""
    place = tmp_path_factory.mktemp("others")
    make_tenant(place / "data", "acme")
    cli(place / "data", "tenants", "export", "acme", str(place / "acme.zip"))
    cli(place / "data", "backup", str(place / "backup"))
    return {"FILE": str(place / "acme.zip"), "PLACE": str(place / "backup")}


def run(name: str, data: Path, others: dict[str, str], **more: int) -> str:
    arguments = [others.get(each, each) for each in ARGUMENTS.get(name, [])]
    if name == "tenants export":
        arguments[1] = str(data.parent / "new.zip")
    return cli(data, *name.split(), *arguments, **more).stderr


@pytest.mark.parametrize("name", REFUSING)
def test_a_mistyped_directory_is_not_made(name, tmp_path, others):
    said = run(name, tmp_path / "mistyped" / "data", others, expect=1)
    assert str(tmp_path / "mistyped" / "data") in said and "--data-dir" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", REFUSING)
def test_a_directory_that_holds_nothing_is_left_as_it_is(name, tmp_path, others):
    (tmp_path / "data").mkdir(mode=0o700)
    run(name, tmp_path / "data", others, expect=0 if name == "check" else 1)
    assert not list((tmp_path / "data").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("name", sorted(MAKES - {"serve"}))
def test_who_begins_a_server_makes_it(name, tmp_path, others):
    run(name, tmp_path / "new" / "data", others)
    assert (tmp_path / "new" / "data" / "control.db").exists()
    assert stat.S_IMODE((tmp_path / "new" / "data").stat().st_mode) == 0o700


def test_a_key_of_a_tenant_in_a_mistyped_directory_makes_nothing(tmp_path):
    cli(tmp_path / "data", "keys", "create", "acme", expect=1)
    assert not list(tmp_path.iterdir())


def test_a_restore_of_what_is_no_backup_makes_nothing(tmp_path):
    cli(tmp_path / "data", "restore", str(tmp_path / "nowhere"), "--yes", expect=1)
    assert not list(tmp_path.iterdir())


def test_a_backup_is_looked_through_where_no_server_was_ever(tmp_path, others):
    cli(tmp_path / "data", "restore", others["PLACE"], "--verify")
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_data_directory(tmp_path):
    (tmp_path / "data").write_text("mine")
    said = cli(tmp_path / "data", "tenants", "create", "acme", expect=2).stderr
    assert "is a file" in said
    with pytest.raises(Unusable, match="is no directory"):
        premises.enter(tmp_path / "data", make=True)
    assert (tmp_path / "data").read_text() == "mine"


# Whose it is.


@pytest.fixture
def data():
    """A data directory where others of this machine get to."""
    if os.geteuid():
        pytest.skip("needs root, to be other users")
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o755)
    yield place / "data"
    shutil.rmtree(place)


def as_user(
    action: Callable[[], object], *, user: int = SOMEBODY, group: int = GROUP, groups: tuple = ()
) -> None:
    """Run `action` as another user, in a process of its own."""
    child = os.fork()
    if not child:
        try:
            os.setgroups(groups)
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, "it failed there; its traceback is above"


def make(data: Path, *, owner: int = SOMEBODY, group: int = GROUP, mode: int = 0o700) -> None:
    """A data directory as somebody's server has made it, and then with these rights."""
    data.mkdir(mode=0o700)
    os.chown(data, SOMEBODY, GROUP)
    as_user(lambda: operator_of(data, lambda it: it.create_tenant("acme")))
    os.chown(data, owner, group)
    data.chmod(mode)


def used(data: Path) -> Callable[[], object]:
    return lambda: operator_of(data, lambda it: it.list_tenants())


def refused(data: Path, why: str) -> Callable[[], object]:
    def action() -> None:
        with pytest.raises(Unusable, match=why):
            operator_of(data, lambda it: it.list_tenants())
        told = [each for each in of_directory(data) if each.what == "data directory"]
        assert told[0].level == "failure" and told[0].remedy

    return action


@pytest.mark.parametrize(
    ("owner", "group", "mode", "groups", "why"),
    [
        (SOMEBODY, GROUP, 0o757, (), "every user of this machine may write"),
        (SOMEBODY, GROUP, 0o777, (), "every user of this machine may write"),
        (SOMEBODY, 4_711, 0o770, (), "group 4711"),
        (0, GROUP, 0o755, (), "may not write there"),
        (0, 4_711, 0o775, (), "may not write there"),
    ],
)
def test_one_that_others_may_write_to_is_refused(data, owner, group, mode, groups, why):
    make(data, owner=owner, group=group, mode=mode)
    as_user(refused(data, why), groups=groups)
    assert stat.S_IMODE(data.stat().st_mode) == mode


@pytest.mark.parametrize(
    ("owner", "group", "mode", "groups"),
    [
        (SOMEBODY, GROUP, 0o770, ()),
        (SOMEBODY, 4_711, 0o2770, (4_711,)),  # fsGroup
        (0, 4_711, 0o2775, (4_711,)),  # fsGroup, on a volume that root owns
        (0, GROUP, 0o770, ()),
        (0, 4_711, 0o1777, ()),  # as /tmp: nobody can rename what is another's
    ],
)
def test_what_platforms_do_is_accepted_and_told(data, owner, group, mode, groups):
    make(data, owner=owner, group=group, mode=mode)
    # As the kubelet does it at every mount.
    (data / "control.db").chmod(0o660)

    def action() -> None:
        used(data)()
        [told] = [each for each in of_directory(data) if each.what == "data directory"]
        assert told.level == "warning" and "may put files into it" in told.says

    as_user(action, groups=groups)
    assert stat.S_IMODE((data / "control.db").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == mode


@pytest.mark.parametrize("name", ["control.db", "lock", "tenants", ".restore"])
def test_what_another_user_has_put_there_is_not_taken_for_ours(data, name):
    make(data, group=4_711, mode=0o2770)
    path = data / name
    if not path.exists():
        path.mkdir() if name in ("tenants", ".restore") else path.touch()
    os.chown(path, 4_712, 4_711)
    as_user(refused(data, f"{name} in it belongs to user 4712"), groups=(4_711,))


def test_a_link_in_a_shared_directory_is_not_followed(data):
    make(data, group=4_711, mode=0o2770)
    (data / "lock").unlink(missing_ok=True)
    (data / "lock").symlink_to(data.parent / "elsewhere")
    os.chown(data / "lock", SOMEBODY, GROUP, follow_symlinks=False)
    as_user(refused(data, "lock in it is a link"), groups=(4_711,))
    assert not (data.parent / "elsewhere").exists()


def test_its_own_user_and_root_go_on_as_before(data):
    make(data, mode=0o755)
    as_user(used(data))
    used(data)()  # root, over what is another's
