"""Steps are frozen: their texts, and the schemas that they make, are those that were released.

`tests/schemas` holds what `sqlite_master` said after each of them when it was released.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path

import pytest

import botwire_server
from botwire_server.store import driver
from botwire_server.store.migrations import CONTROL, NAMESPACE, Schema, statements
from botwire_server.store.vectors import FIRST_DIMENSION, vector_tables

STEPS = Path(botwire_server.__file__).parent / "store" / "steps"
SCHEMAS = Path(__file__).parent / "schemas"

# SHA-256 of each text. A step that was released keeps its line; a new one gets one, and a record
# of the schema that it makes: `python tests/test_steps.py` prints the line and writes the record.
FROZEN = {
    "control/1.sql": "7b8f50b9f81f82d2d934e8cfd72c01eb9b4db5fb84327553fe59e20dc042c119",
    "control/2.sql": "bdacc04fb9af6b56f932e39c24d0e5503b5d97dff07d36b9f87e5acdd47ff414",
    "control/3.sql": "7418f9f5011e7f1099a051ee2f3d78e30ead4a8a38305b80cc6841a4d6e57a48",
    "control/4.sql": "451be7073ec191818e2f87d8e6115d80e52b098ded87eec96315e1e16a041992",
    "control/5.sql": "e1cbeb1102cc296c0dc7b088c00aebeca6a20ce7636532ca47cb17c2921966dd",
    "control/6.sql": "d85bec50c30eb9465a6589948774e27c8a74e37d060a7e9f71a7ad58c4b90cc6",
    "namespace/1.sql": "d31f04b2e5c1c14bde57fc33dc5ff0c2b80b26ac9630de3dda534d69aeb937da",
    "namespace/2.sql": "40f9b649941a47b2517d5bc876cd3b4bec8a6889980ecc8f045d0d5e8c64d889",
    "namespace/3.sql": "12c294e4590cedc0d7567bd586856672aa8cea7a042f5ecbc8978a77e391c22b",
}


def master(connection: driver.Connection) -> str:
    """What a file is made of, as text."""
    rows = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    )
    return "".join(f"{kind} {name} ON {table}\n{sql or ''}\n\n" for kind, name, table, sql in rows)


def after(schema: Schema, count: int) -> str:
    """What a file is made of after so many steps."""
    with closing(driver.connect(":memory:")) as connection:
        for step in schema.steps[:count]:
            for statement in step:
                connection.execute(statement)
        return master(connection)


def digest(name: str) -> str:
    return hashlib.sha256((STEPS / name).read_bytes()).hexdigest()


def test_every_step_is_frozen():
    found = {str(path.relative_to(STEPS)) for path in STEPS.rglob("*.sql")}
    assert found == set(FROZEN)


@pytest.mark.parametrize("name", FROZEN)
def test_a_step_is_what_was_released(name):
    assert digest(name) == FROZEN[name], f"{name} was released: put what is new into a new step"


@pytest.mark.parametrize("schema", [NAMESPACE, CONTROL], ids=lambda schema: schema.name)
def test_the_schema_is_that_of_the_record(schema):
    for count in range(1, len(schema.steps) + 1):
        recorded = (SCHEMAS / f"{schema.name}-{count}.txt").read_text()
        assert after(schema, count) == recorded, f"{schema.name} after step {count}"


def test_todays_vector_tables_are_those_of_a_new_file():
    """Living code that makes them anew for another model, and step 1, which it does not share."""
    with closing(driver.connect(":memory:")) as connection:
        for step in NAMESPACE.steps:
            for statement in step:
                connection.execute(statement)
        before = master(connection)
        connection.execute("DROP TABLE memory_bits")
        connection.execute("DROP TABLE vectors")
        for statement in vector_tables(FIRST_DIMENSION):
            connection.execute(statement)
        assert master(connection) == before


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A;\nB;\n", ["A", "B"]),
        ("-- why\nCREATE TABLE t (\n  x\n);\n", ["-- why\nCREATE TABLE t (\n  x\n)"]),
        (
            "CREATE TRIGGER a AFTER INSERT ON t BEGIN\n DELETE FROM t; END;\nB;",
            ["CREATE TRIGGER a AFTER INSERT ON t BEGIN\n DELETE FROM t; END", "B"],
        ),
        ("INSERT INTO t VALUES (';');", ["INSERT INTO t VALUES (';')"]),
    ],
)
def test_statements_are_told_apart(text, found):
    assert list(statements(text)) == found


def test_half_a_statement_is_refused():
    with pytest.raises(ValueError, match="within a statement"):
        list(statements("A;\nCREATE TABLE t ("))


if __name__ == "__main__":
    for schema in (NAMESPACE, CONTROL):
        count = len(schema.steps)
        name = f"{schema.name}/{count}.sql"
        (SCHEMAS / f"{schema.name}-{count}.txt").write_text(after(schema, count))
        print(f'    "{name}": "{digest(name)}",')
