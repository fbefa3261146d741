"""Every check, by name: what CI runs, in this order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from harness import CHECKOUT

# Files of the package that a campaign names: what it plants its faults in.
_TARGET = re.compile(r'"((?:[a-z_]+/)*[a-z_]+\.py)"')


@dataclass(frozen=True)
class Check:
    """A command that must exit with 0; or with 1, as one does that has `caught` a planted fault."""

    name: str
    command: tuple[str, ...]
    caught: bool = False

    @property
    def digest(self) -> str:
        """What a campaign with a planted fault depends on: itself, its harness, what it breaks."""
        campaign = CHECKOUT / self.command[0]
        files = [campaign, *(CHECKOUT / "scripts" / "harness").glob("*")]
        package = CHECKOUT / "botwire_server"
        files += [package / name for name in _TARGET.findall(campaign.read_text())]
        digest = sha256(shlex.join(self.command).encode())
        for file in sorted(path for path in files if path.is_file()):
            digest.update(file.read_bytes())
        return digest.hexdigest()


def check(name: str, command: str) -> Check:
    """A check that passes where the command does."""
    return Check(name, tuple(shlex.split(command)))


def campaign(name: str, command: str, **finds: str) -> Iterator[Check]:
    """A campaign, and for each fault (`-` written `_`) what must be added for it to be found."""
    yield check(name, command)
    for fault, more in finds.items():
        plant = fault.replace("_", "-")
        words = shlex.split(f"{more} --plant {plant}")
        yield Check(f"{name} finds {plant}", (shlex.split(command)[0], *words), caught=True)


# A second, and what must hold before anything else is looked at.
AT_ONCE = (
    check("format", "ruff format --check"),
    check("lint", "ruff check"),
    check("types", "mypy"),
    check("options in the README", "scripts/options"),
    check(
        "architecture, plants, documents",
        "pytest tests/test_architecture.py tests/test_plants.py tests/test_steps.py "
        "tests/test_openapi.py tests/test_operating_docs.py tests/test_deploying_docs.py",
    ),
)

TESTS = check("tests", "pytest -n 2")
QUICK_TESTS = check("tests", "pytest -n 2 -m 'not slow'")
QUICK_CAMPAIGN = check("kill -9", "scripts/kill --rounds 2 --unclean 10")

SMOKE = """
. scripts/environment.sh
python=$(python_of "$1")
[ -n "$python" ] || { echo "There is no Python $1 here."; exit 0; }
ensure_environment ".venv-$1" "$python"
"$venv/bin/python" scripts/smoke
"""

CAMPAIGNS = (
    *campaign(
        "kill -9",
        "scripts/kill --rounds 5 --unclean 60",
        answer_before_commit="--rounds 5 --unclean 0",
        signs_apart="--rounds 6 --unclean 0",
    ),
    *campaign(
        "power loss",
        "scripts/power-loss --states 60",
        commit_unsynced="--states 60",
        journal_believed="--states 300",
    ),
    check(
        "power loss under relaxed durability loses",
        "scripts/power-loss --states 15 --durability relaxed",
    ),
    *campaign(
        "failing disk",
        "scripts/failing-disk --seconds 0.6 --only every --only tmpfs",
        commit_error_swallowed="--seconds 0.6 --only 'fsync of journals'",
        draft_dropped_in_doubt="--seconds 0.6 --only 'fsync of the registry'",
    ),
    *campaign(
        "misuse",
        "scripts/misuse --sample 40 --interruptions 0 --situation link",
        made_anyway="--sample 0 --interruptions 0 --only 'tenants list' --situation missing",
        not_proved="--sample 0 --interruptions 0 --only 'restore BACKUP --yes' --situation mount",
        traceback="--sample 20 --interruptions 0 --no-situations --only 'backups BACKUP' --seed 1",
    ),
    *campaign(
        "purge race",
        "scripts/purge-race --rounds 6",
        lets_go_late="--rounds 6",
        receipt_first="--rounds 6",
    ),
    *campaign(
        "storage limit",
        "scripts/storage-limit --rounds 1 --seconds 2",
        promises_nothing="--rounds 2 --seconds 3",
        never_given_back="--rounds 1 --seconds 2",
    ),
    *campaign(
        "damage",
        "scripts/damage --each 1",
        unchecked="--each 1 --seed 1",
        empty="--each 1",
    ),
    *campaign(
        "churn",
        "scripts/churn --operations 3000 --live 100",
        no_rebuild="--operations 3000 --live 100",
        no_vacuum="--operations 3000 --live 100",
    ),
    *campaign(
        "backup under load",
        "scripts/backup-under-load --rounds 5",
        bytes="--rounds 15",
        size="--rounds 15",
        time="--rounds 15",
    ),
    *campaign(
        "fuzz archives",
        "scripts/fuzz-archives --cases 60",
        expansion_believed="--cases 12 --only sizes",
        record_believed="--cases 60 --only records",
    ),
    *campaign(
        "fuzz backups",
        "scripts/fuzz-backups --cases 48",
        path_believed="--cases 40 --only rows",
        schema_believed="--cases 24 --only schemas",
    ),
    *campaign("cancel", "scripts/cancel", count_apart="", open_transaction=""),
    *campaign(
        "terminate",
        "scripts/terminate --rounds 2",
        no_grace="--rounds 1",
        waits_for_stalled="--rounds 2",
        answer_before_commit="--rounds 3",
    ),
    *campaign(
        "hostile clients",
        "scripts/hostile-clients --rounds 3",
        no_head_limit="--parts 2",
        body_read_whole="--parts 2",
        body_looked_through="--parts 2",
        no_deadline="--rounds 1 --parts 1",
        crowd_looked_through="--rounds 1 --parts 1",
        keeps_trailers="--parts 3",
        keeps_all_requests="--parts 3",
        keeps_what_is_offered="--parts 3",
    ),
    *campaign(
        "smuggling",
        "scripts/smuggling --attempts 22 --tries 1 --only smuggle --only cache --only large "
        "--only java",
        upgrade_loses_body="--attempts 6 --only smuggle",
        cacheable="--only cache",
        told_early="--only large --tries 1",
    ),
    *campaign(
        "growth",
        "scripts/growth --short",
        field_without_limit="--short",
        signs_looked_for_again="--short --only 'semantic body content' --shape dots",
        each_against_each="--short --only filter --shape 'many numbers'",
    ),
    *campaign(
        "bad keys",
        "scripts/bad-keys",
        first_forwarded="",
        address_first="",
        never="",
        proxy_counted="",
    ),
    *campaign(
        "stands",
        "scripts/stands --at-once 2",
        wrongly_brief="--parts 1 --at-once 1 --only summarize",
        decoded_on_the_loop="--parts 1 --at-once 1 --only summarize",
        long_value_on_the_loop="--parts 1 --at-once 1 --only /memory/large/key",
        no_deadline="--parts 2",
    ),
    check("linearizable", "scripts/linearizable --histories 3"),
    *campaign(
        "fuzz",
        "scripts/fuzz --cases 1500 --seed 1",
        no_depth_limit="--cases 1500 --seed 1",
        trims_values="--cases 1500 --seed 1",
        file_by_name="--cases 1500 --seed 1",
        answers_more_than_it_says="--cases 1500 --seed 1",
    ),
    check("wheel", "scripts/wheel"),
    *(
        Check(f"smoke on {version}", ("sh", "-euc", SMOKE, "scripts/test", version))
        for version in ("3.12", "3.13")
    ),
    check("frameworks", "scripts/test-frameworks"),
    check("S3-compatible storage", "scripts/test-s3"),
)

ALL = (*AT_ONCE, *CAMPAIGNS, TESTS)
