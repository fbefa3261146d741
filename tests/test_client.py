"""The `botwire` client from the package index, unmodified, against a server process."""

from __future__ import annotations

import json
import uuid

import httpx
import pytest
from serving import run_client

TEXTS = [
    "",
    "plain",
    "Grüße, 世界, 🙂, \u202eright to left",
    "line one\nline two\r\n\ttabbed",
    '"quoted" \\ back / slash',
    "[not json",
    "{also not",
    "[1, 2",
    "   [1]",
    "true",
    "null",
    "42",
    "\x00\x01\x1f control",
    "e\u0301 is not \u00e9",
    "x" * 100_000,
    "é" * 50_000,
]

KEYS = [
    "name",
    "a/b",
    "a/b/c/d",
    "with space",
    "100%",
    "5% off",
    "Grüße",
    "世界/🙂",
    "user:42",
    "ada@example.com",
    "a//b",
    "trailing/",
    "a+b",
    "a&b=c",
    "-._~!$'()*,;",
    '"quoted"',
    "k" * 512,
    "é" * 512,
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:12]))
def test_a_string_comes_back_as_it_went(memory, ns, text):
    memory(ns).set("k", text)
    assert memory(ns).get("k") == text


@pytest.mark.parametrize(
    ("value", "back"),
    [(42, "42"), (3.5, "3.5"), (True, "true"), (False, "false"), (None, "null")],
)
def test_what_is_no_string_comes_back_as_its_json(memory, ns, value, back):
    memory(ns).set("k", value)
    assert memory(ns).get("k") == back


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"a": 1, "b": [True, None, 2.5], "ü": {"deep": ["x", {}]}},
        [1, "two", {"three": 3}],
        [[[[]]]],
        {"text": "line\nbreak", "list": list(range(1_000))},
    ],
    ids=repr,
)
def test_objects_and_lists_round_trip(memory, ns, value):
    memory(ns).set("k", value)
    assert memory(ns).get("k") == value


def test_a_string_that_is_json_is_decoded_by_the_client_alone(memory, http, ns):
    text = "[1,  2,3]"
    memory(ns).set("k", text)
    assert memory(ns).get("k") == [1, 2, 3]
    assert http.get(f"/memory/{ns}/k").json()["value"] == text


@pytest.mark.parametrize("key", KEYS, ids=lambda key: repr(key[:12]))
def test_every_kind_of_key(memory, ns, key):
    mem = memory(ns)
    assert key not in mem
    mem.set(key, "v")
    assert mem.get(key) == "v"
    assert key in mem
    assert mem.keys() == [key]
    assert mem.delete(key) is True
    assert key not in mem
    assert mem.delete(key) is False
    assert mem.keys() == []


def test_keys_that_look_alike_are_different(memory, ns):
    mem = memory(ns)
    alike = ["a", "A", "a ", "a/", "a//", "é", "e\u0301", "ａ", "a.", "0", "00"]
    for number, key in enumerate(alike):
        mem.set(key, f"value {number}")
    assert {key: mem.get(key) for key in alike} == {
        key: f"value {number}" for number, key in enumerate(alike)
    }
    assert sorted(mem.keys()) == sorted(alike)


def test_a_missing_key_gives_the_default(memory, ns):
    mem = memory(ns)
    assert mem.get("nothing") is None
    assert mem.get("nothing", default=[]) == []
    mem.set("something", "v")
    assert mem.get("nothing", "d") == "d"


def test_an_empty_value_is_in(memory, ns):
    memory(ns).set("k", "")
    assert "k" in memory(ns)


def test_the_empty_key_changes_nothing(memory, ns):
    """The client drops the last segment of the path, so the namespace itself is asked."""
    mem = memory(ns)
    mem.set("kept", "v")
    with pytest.raises(httpx.HTTPStatusError) as refused:
        mem.set("", "v")
    assert refused.value.response.status_code == 405
    assert mem.get("", "default") is None
    assert "" not in mem
    assert mem.delete("") is False
    assert mem.keys() == ["kept"]
    assert mem.get("kept") == "v"


def test_a_question_mark_is_refused_rather_than_written_elsewhere(memory, ns):
    mem = memory(ns)
    mem.set("k", "first")
    with pytest.raises(httpx.HTTPStatusError):
        mem.set("k?x=1", "second")
    assert mem.delete("k?x=1") is False
    assert mem.get("k") == "first"


def test_keys_are_newest_first_and_complete(memory, ns):
    mem = memory(ns)
    for number in range(250):
        mem.set(f"k{number}", "v")
    mem.set("k7", "again")
    keys = mem.keys()
    assert len(keys) == 250
    assert keys[:3] == ["k7", "k249", "k248"]
    assert keys[-1] == "k0"


@pytest.mark.parametrize("name", ["Grüße", "ada@example.com", "user:42", "with space", "n" * 256])
def test_namespaces_have_wide_names(memory, name):
    mem = memory(name)
    mem.set("k", name)
    assert memory(name).get("k") == name
    assert memory(name + "x" if len(name) < 256 else name[1:]).keys() == []


@pytest.mark.parametrize("form", ["{url}", "{url}/", "http://KEY@{host}", "http://x:KEY@{host}/"])
def test_botwire_url_alone_points_the_client_here(server, ns, form):
    url = form.format(url=server.url, host=server.url.removeprefix("http://"))
    said = run_client(
        url,
        f"""
import json
from botwire import Memory
m = Memory({ns!r})
m.set("name", "Ada")
m.set("likes", ["maths", 1])
print(json.dumps([m.get("name"), m.get("likes"), "name" in m, m.keys(),
    m.delete("name"), m.delete("name"), m.get("name", "gone")]))
m._client.close()
""",
    )
    assert json.loads(said) == ["Ada", ["maths", 1], True, ["likes", "name"], True, False, "gone"]


def test_the_doubled_slash_of_a_base_url_is_one(server):
    """`register` asks for //identity/…: a 404 that names the path, never another resource."""
    said = run_client(
        server.url + "/",
        """
import botwire
try:
    botwire.register("agent", accept_terms=True)
except botwire.BotWireError as error:
    print(error)
""",
    )
    assert "404" in said


def test_two_namespaces_never_see_each_other(memory):
    one, two = memory(f"one-{uuid.uuid4()}"), memory(f"two-{uuid.uuid4()}")
    one.set("secret", "of one")
    assert two.get("secret") is None
    assert two.keys() == []
    two.set("secret", "of two")
    assert two.delete("secret") is True
    assert one.get("secret") == "of one"
    assert two.get("secret") is None


def test_dot_segments_are_resolved_by_the_client(memory, ns):
    """Documented, not desired: no server can see it."""
    memory(ns).set(f"../{ns}-b/k", "v")
    assert memory(f"{ns}-b").get("k") == "v"
    with pytest.raises(httpx.HTTPStatusError) as refused:
        memory(ns).set("..", "v")
    assert refused.value.response.status_code in (404, 405)
