"""The multi-tenant examples people write with the `botwire` client, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys

from serving import environment, run_client

TENANT_AGENT = '''
import json, uuid
from botwire import Memory


class TenantAgent:
    """One agent, one memory for each user of each tenant."""

    def __init__(self, tenant, user):
        self.memory = Memory(f"tenant-{tenant}-user-{user}")

    def learn(self, **context):
        self.memory.set("user_context", {**self.memory.get("user_context", {}), **context})

    def chat(self, question):
        context = self.memory.get("user_context", {})
        answer = f"Hello {context.get('name', 'stranger')}: {question}?"
        id = f"chat-{uuid.uuid4()}"
        self.memory.set(id, {"question": question, "answer": answer, "context": context})
        return id, answer

    def chats(self):
        return [self.memory.get(key) for key in self.memory.keys() if key.startswith("chat-")]
'''


def test_tenants_and_users_are_apart_and_survive_a_restart(make_server):
    server = make_server()
    first = run_client(
        server.url,
        TENANT_AGENT
        + """
ada, bob, eve = TenantAgent("acme", "1"), TenantAgent("acme", "2"), TenantAgent("other", "1")
ada.learn(name="Ada", plan="pro")
bob.learn(name="Bob")
print(json.dumps([ada.chat("what")[1], ada.chat("and")[1], bob.chat("who")[1], eve.chat("me")[1],
    len(ada.chats()), len(bob.chats()), len(eve.chats())]))
""",
    )
    assert json.loads(first) == [
        "Hello Ada: what?",
        "Hello Ada: and?",
        "Hello Bob: who?",
        "Hello stranger: me?",
        *(2, 1, 1),
    ]
    server.restart()
    second = run_client(
        server.url,
        TENANT_AGENT
        + """
ada, eve = TenantAgent("acme", "1"), TenantAgent("other", "1")
print(json.dumps([ada.chat("again")[1], [chat["answer"] for chat in ada.chats()],
    eve.memory.get("user_context"), ada.chats()[0]["context"]]))
""",
    )
    assert json.loads(second) == [
        "Hello Ada: again?",
        ["Hello Ada: again?", "Hello Ada: and?", "Hello Ada: what?"],
        None,
        {"name": "Ada", "plan": "pro"},
    ]


def test_three_processes_share_one_namespace(server, memory, ns):
    code = """
import sys
from botwire import Memory
me, m = sys.argv[1], Memory(sys.argv[2])
for number in range(30):
    m.set(f"{me}/{number}", {"by": me, "number": number})
    m.set("last", me)
assert all(m.get(f"{me}/{number}") == {"by": me, "number": number} for number in range(30))
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, name, ns], env=environment(BOTWIRE_URL=server.url), cwd="/"
        )
        for name in ("one", "two", "three")
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    mem = memory(ns)
    assert sorted(mem.keys()) == sorted(
        ["last", *(f"{who}/{n}" for who in ("one", "two", "three") for n in range(30))]
    )
    assert mem.get("last") in ("one", "two", "three")
