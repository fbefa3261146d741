"""One open file: units of work, shared commits, failures that stay alone, cancelled callers."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from contextlib import asynccontextmanager, closing

import pytest
from serving import until

from botwire_server.errors import Closed, Conflict, Unavailable
from botwire_server.store.database import Database
from botwire_server.store.driver import connect, sqlite3
from botwire_server.store.migrations import Schema, template, write_new
from botwire_server.store.turns import LONG_TURN_NS, turn_ns
from botwire_server.store.units import BRIEF_BYTES, brief, is_brief, require_short

STEPS = (
    (
        "CREATE TABLE pairs (name TEXT NOT NULL, side TEXT NOT NULL, PRIMARY KEY (name, side))",
        "CREATE TABLE log (id INTEGER PRIMARY KEY, name TEXT)",
    ),
)


class Pairs(Database):
    """A database in which every name is there twice or not at all."""

    schema = Schema("pairs", 0x70616972, "WAL", STEPS)


def put(connection, name):
    connection.execute("INSERT INTO pairs VALUES (?, 'left')", (name,))
    connection.execute("INSERT INTO pairs VALUES (?, 'right')", (name,))
    return name


@brief
def put_briefly(connection, name):
    return put(connection, name)


def count(connection):
    return connection.execute("SELECT count(*) FROM pairs").fetchone()[0]


@brief
def count_briefly(connection):
    return count(connection)


def fail_half_way(connection, name):
    connection.execute("INSERT INTO pairs VALUES (?, 'left')", (name,))
    raise Conflict("On purpose.")


@brief
def fail_briefly(connection, name):
    fail_half_way(connection, name)


def break_sql(connection, name):
    connection.execute("INSERT INTO pairs VALUES (?, 'left')", (name,))
    connection.execute("INSERT INTO pairs VALUES (?, 'left')", (name,))


PUTS = pytest.mark.parametrize("put", [put, put_briefly])


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "pairs.db"
    write_new(path, template(Pairs.schema, tmp_path))
    return path


@asynccontextmanager
async def opened(path, **options):
    database = await Pairs.open(path, durability="full", clock=lambda: 0.0, **options)
    try:
        yield database
    finally:
        await database.close()


def stored(path) -> dict[str, int]:
    """How many sides of each name another connection sees."""
    connection = connect(path)
    try:
        return dict(connection.execute("SELECT name, count(*) FROM pairs GROUP BY name"))
    finally:
        connection.close()


class Statements:
    """Counts the statements of a connection."""

    def __init__(self, database: Database) -> None:
        self.seen: list[str] = []
        database._connection.set_trace_callback(self.seen.append)

    def count(self, statement: str) -> int:
        return sum(seen.startswith(statement) for seen in self.seen)


@PUTS
async def test_an_answer_comes_after_the_commit(path, put):
    async with opened(path) as database:
        for number in range(20):
            await database.transact(put, f"n{number}")
            assert stored(path)[f"n{number}"] == 2


@PUTS
async def test_what_arrives_together_shares_a_commit(path, put):
    async with opened(path) as database:
        statements = Statements(database)
        await asyncio.gather(*(database.transact(put, f"n{number}") for number in range(100)))
        assert statements.count("BEGIN") == statements.count("COMMIT") == 1
        assert len(stored(path)) == 100


@PUTS
async def test_a_batch_is_bounded(path, put):
    async with opened(path) as database:
        statements = Statements(database)
        await asyncio.gather(*(database.transact(put, f"n{number}") for number in range(600)))
        assert statements.count("COMMIT") == 3


@pytest.mark.parametrize("failing", [fail_half_way, fail_briefly, break_sql])
@PUTS
async def test_a_unit_that_fails_spoils_no_other(path, put, failing):
    async with opened(path) as database:
        units = [
            database.transact(failing if number % 7 == 3 else put, f"n{number}")
            for number in range(70)
        ]
        results = await asyncio.gather(*units, return_exceptions=True)
        for number, result in enumerate(results):
            if number % 7 == 3:
                assert isinstance(result, Conflict | Unavailable)
            else:
                assert result == f"n{number}"
        assert stored(path) == {f"n{number}": 2 for number in range(70) if number % 7 != 3}
        assert not database._connection.in_transaction


@pytest.mark.parametrize("failing", [fail_half_way, fail_briefly, break_sql])
async def test_a_unit_that_fails_alone_leaves_nothing(path, failing):
    async with opened(path) as database:
        with pytest.raises((Conflict, Unavailable)):
            await database.transact(failing, "n")
        assert stored(path) == {}
        assert not database._connection.in_transaction
        await database.transact(put, "n")


async def test_a_fault_of_ours_is_raised_as_it_is(path):
    def divide(connection, name):
        put(connection, name)
        return 1 / 0

    def misuse(connection):
        connection.execute("SELECT ?")

    async with opened(path) as database:
        with pytest.raises(ZeroDivisionError):
            await database.transact(divide, "n")
        with pytest.raises(sqlite3.ProgrammingError):
            await database.transact(misuse)
        assert stored(path) == {}


@pytest.mark.parametrize("count", [count, count_briefly])
@PUTS
async def test_a_read_sees_every_write_asked_for_before_it(path, put, count):
    async with opened(path) as database:
        asked = []
        for number in range(50):
            asked.append(asyncio.ensure_future(database.transact(put, f"n{number}")))
            asked.append(asyncio.ensure_future(database.read(count)))
            await asyncio.sleep(0)
        results = await asyncio.gather(*asked)
        for number, seen in enumerate(results[1::2]):
            assert seen >= 2 * (number + 1)


async def test_reads_take_no_lock_for_writing(path):
    async with opened(path) as database:
        statements = Statements(database)
        await asyncio.gather(*(database.read(count) for _ in range(10)))
        assert statements.count("BEGIN IMMEDIATE") == 0
        assert await database.read(count_briefly) == 0
        assert statements.count("BEGIN") == 10


async def test_a_unit_that_reads_sees_one_state_whoever_writes(path):
    def count_twice(connection):
        before = count(connection)
        with closing(connect(path)) as other:
            other.execute("INSERT INTO pairs VALUES ('other', 'left')")
        return before, count(connection)

    async with opened(path) as database:
        assert await database.read(count_twice) == (0, 0)
        assert await database.read(count) == 1


async def test_a_unit_that_fails_to_read_leaves_no_transaction_open(path):
    def misread(connection):
        count(connection)
        connection.execute("SELECT no_such_function(1)")

    async with opened(path) as database:
        with pytest.raises(Unavailable):
            await database.read(misread)
        assert not database._connection.in_transaction
        await database.transact(put, "n")


@pytest.mark.skipif(turn_ns() in (None, 0), reason="this system knows no turns")
async def test_threads_take_longer_turns_than_the_loop(path):
    loops = turn_ns()
    async with opened(path) as database:
        assert await database.read(lambda _: turn_ns()) == LONG_TURN_NS > loops
    assert turn_ns() == loops


async def test_brief_units_run_on_the_loop_and_others_on_the_thread(path):
    def where(connection):
        return threading.current_thread()

    brief_where = brief(lambda connection: threading.current_thread())
    async with opened(path) as database:
        assert await database.transact(where) is not threading.current_thread()
        assert await database.read(where) is await database.transact(where)
        assert await database.transact(brief_where) is threading.current_thread()
        assert await database.read(brief_where) is threading.current_thread()


def test_a_unit_with_a_large_value_is_not_brief():
    assert is_brief(put_briefly, ("n", b"x" * 65_536))
    assert not is_brief(put_briefly, ("n", b"x" * 65_537))
    assert not is_brief(put, ("n",))


async def test_the_order_of_units_is_the_order_they_came(path):
    def append(connection, name):
        connection.execute("INSERT INTO log (name) VALUES (?)", (name,))

    append_briefly = brief(lambda connection, name: append(connection, name))
    async with opened(path) as database:
        units = [append if random.random() < 0.5 else append_briefly for _ in range(200)]
        await asyncio.gather(*(database.transact(u, str(n)) for n, u in enumerate(units)))
        names = await database.read(
            lambda connection: connection.execute("SELECT name FROM log ORDER BY id").fetchall()
        )
    assert names == [(str(number),) for number in range(200)]


@PUTS
async def test_500_cancelled_callers_leave_no_half_and_no_open_transaction(path, put):
    chance = random.Random(5)
    async with opened(path) as database:

        async def work(name: str) -> None:
            await asyncio.sleep(chance.random() * 0.02)
            await database.read(count)
            await database.transact(put, name)
            await database.read(count_briefly)
            await database.transact(put, name + "'")

        for turn in range(10):
            tasks = [asyncio.create_task(work(f"{turn}-{number}")) for number in range(50)]
            for task in tasks:
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.random() * 0.002)
                task.cancel() if chance.random() < 0.2 else asyncio.get_running_loop().call_later(
                    chance.random() * 0.06, task.cancel
                )
            await asyncio.gather(*tasks, return_exceptions=True)
        cancelled = stored(path)
        assert 0 < len(cancelled) < 1_000  # some came through, some did not
        await database.transact(put, "last")
        assert set(stored(path).values()) == {2}
        assert not database._connection.in_transaction
        assert not database.busy


async def test_a_commit_that_fails_stores_nothing_and_the_next_goes_on(path):
    """The file may not grow, so COMMIT or an insert before it fails for real."""
    async with opened(path) as database:
        await database.transact(put, "before")
        pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
        database._connection.execute(f"PRAGMA max_page_count = {pages}")
        large = ["x" * 5_000 + str(number) for number in range(50)]
        results = await asyncio.gather(
            *(database.transact(put, name) for name in large),
            database.read(count),
            return_exceptions=True,
        )
        refused = [name for name, result in zip(large, results, strict=False) if result != name]
        assert all(
            isinstance(result, Unavailable) for result in results[:-1] if result not in large
        )
        assert refused
        assert stored(path) == {name: 2 for name in ["before", *large] if name not in refused}
        assert isinstance(results[-1], int)
        database._connection.execute("PRAGMA max_page_count = 1000000")
        await database.transact(put, "x" * 5_000)
        assert stored(path)["x" * 5_000] == 2


async def test_another_process_that_holds_the_lock_is_waited_for(path):
    async with opened(path) as database:
        other = connect(path)
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO pairs VALUES ('other', 'left'), ('other', 'right')")
        writing = asyncio.ensure_future(database.transact(put_briefly, "ours"))
        await asyncio.sleep(0.2)
        assert not writing.done()
        other.execute("COMMIT")
        other.close()
        assert await asyncio.wait_for(writing, 10) == "ours"
        assert stored(path) == {"other": 2, "ours": 2}


@PUTS
async def test_close_finishes_what_is_queued_and_takes_nothing_more(path, put):
    async with opened(path) as database:
        queued = [asyncio.ensure_future(database.transact(put, f"n{n}")) for n in range(30)]
        await asyncio.sleep(0)
        await database.close()
        assert len(await asyncio.gather(*queued)) == 30
        for refused in (database.transact(put, "late"), database.read(count_briefly)):
            with pytest.raises(Closed):
                await refused
        await database.close()
    assert stored(path) == {f"n{number}": 2 for number in range(30)}


async def test_what_keeps_nothing_stays_empty(path):
    async with opened(":memory:", keep=False) as database:
        await database.transact(put, "n")
        await database.transact(put_briefly, "n")
        assert await database.read(count) == 0


async def test_closing_releases_thread_and_descriptors(path):
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    before = held()
    for number in range(20):
        async with opened(path) as database:
            await database.transact(put_briefly, str(number))
    until(lambda: held() <= before, "threads and descriptors are released")


async def test_a_checkpoint_empties_the_wal(path):
    async with opened(path) as database:
        for number in range(20):
            await database.transact(put, f"n{number}")
        wal = path.with_name(path.name + "-wal")
        assert wal.stat().st_size > 0
        asked = [
            database.transact(put, "with"),
            database.checkpoint(),
            database.transact(put, "to"),
        ]
        assert (await asyncio.gather(*asked))[1] is True
        assert await database.checkpoint() is True
        assert wal.stat().st_size == 0
        assert len(stored(path)) == 22


@brief
def read_side(connection):
    """A unit that is brief unless what it finds is long."""
    row = connection.execute(
        "SELECT iif(octet_length(side) <= ?, side, NULL) FROM pairs WHERE name = 'long'",
        (connection.longest,),
    ).fetchone()
    require_short(connection, row[0])
    return len(row[0]), threading.current_thread() is threading.main_thread()


def put_long(connection, size):
    connection.execute("INSERT OR REPLACE INTO pairs VALUES ('long', ?)", ("x" * size,))


@brief
def count_and_read_side(connection):
    connection.execute("INSERT INTO log (name) VALUES ('read')")
    return read_side(connection)


@pytest.mark.parametrize("size", [BRIEF_BYTES, BRIEF_BYTES + 1])
async def test_a_brief_unit_that_finds_a_long_row_moves_to_the_thread(path, size):
    brief_enough = size <= BRIEF_BYTES
    async with opened(path) as pairs:
        await pairs.transact(put_long, size)
        assert await pairs.read(read_side) == (size, brief_enough)
        # In the queue, behind a write; beside others; and as a write, which is done once.
        found = await asyncio.gather(
            pairs.transact(put_briefly, "Ada"),
            pairs.read(read_side),
            pairs.read(count_briefly),
            pairs.transact(count_and_read_side),
        )
        assert found[1][0] == found[3][0] == size
        assert found[3][1] is brief_enough
        assert found[2] == 3
        [logged] = await pairs.read(
            lambda connection: connection.execute("SELECT count(*) FROM log").fetchone()
        )
        assert logged == 1
        assert await pairs.read(read_side) == (size, brief_enough)
