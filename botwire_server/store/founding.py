"""The registry of a restored data directory: made anew, of the rows that a backup's copy has.

known rows            written into an empty registry
namespaces            as they were built here, under files that were named here
id, place             of the installation that it is from now on
keys                  off where they may not work; see `provenance`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from botwire_server.errors import Damaged
from botwire_server.store import control_copies, copying, installation, records, registry_rows
from botwire_server.store.archive import Built
from botwire_server.store.control_copies import KnownKey
from botwire_server.store.driver import Connection, sqlite3
from botwire_server.store.migrations import CONTROL, template, write_new
from botwire_server.store.provenance import Present, Standing, Wishes


def write(
    target: Path,
    copy: Path,
    *,
    built: Mapping[str, Sequence[Built]],
    id: str,
    place: str,
    standing: Standing,
    present: Present | None,
    wishes: Wishes,
) -> None:
    """Write the registry `target` from the backup's `copy`.

    `built` are the namespaces by their tenants' ids; `present` is what the data directory had.
    """
    write_new(target, template(CONTROL, target.parent))
    try:
        with copying.opened(copy) as source, copying.building(target) as connection:
            connection.execute("BEGIN")
            registry_rows.take_over(source, connection)
            for tenant_id, namespaces in built.items():
                records.add_namespaces(connection, tenant_id, list(namespaces))
            installation.become(connection, id)
            installation.stay(connection, place)
            _turn_off(connection, standing, present, wishes)
            if present is not None:
                _keep(connection, present)
            connection.execute("COMMIT")
    except sqlite3.IntegrityError as error:
        raise Damaged("The registry's copy contradicts itself.") from error


def stays_on(key: KnownKey, *, standing: Standing, present: Present | None, wishes: Wishes) -> bool:
    """Whether a key that works in the backup works once it is restored."""
    return _ended(key, standing, present, wishes) is None


def _ended(
    key: KnownKey, standing: Standing, present: Present | None, wishes: Wishes
) -> float | None:
    """Since when a key of the backup is off; 0 where it came with it and was not asked for."""
    if present is not None:
        if key.id in present.revoked:
            return present.revoked[key.id]
        purged = present.purged.get(key.tenant_id or "")
        if purged is not None and key.created_at <= purged:
            return purged
    if key.tenant_id is None:
        unwanted = standing != "own" and not wishes.with_operator_keys
    else:
        unwanted = standing == "foreign" and not wishes.with_keys
    return 0.0 if unwanted else None


def _turn_off(
    connection: Connection, standing: Standing, present: Present | None, wishes: Wishes
) -> None:
    """Turn keys off that may not work here."""
    ended = [
        (at or connection.now, key.id)
        for key in control_copies.known_keys(connection)
        if (at := _ended(key, standing, present, wishes)) is not None
    ]
    connection.executemany(
        "UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", ended
    )


def _keep(connection: Connection, present: Present) -> None:
    """Let nothing work again that was ended here, whatever is restored later."""
    if present.keys_required:
        connection.execute(
            "INSERT INTO facts (name, value) VALUES ('keys_required', 1) ON CONFLICT DO NOTHING"
        )
    known = {id for [id] in connection.execute("SELECT id FROM keys")}
    installation.note_revoked(
        connection, {id: at for id, at in present.revoked.items() if id not in known}
    )
    connection.executemany(
        """INSERT INTO purges (id, tenant_id, scope, actor, started_at, receipt)
        VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING""",
        present.receipts,
    )
