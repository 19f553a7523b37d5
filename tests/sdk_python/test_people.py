"""A team's first day on a cloud server: sign-up, an org, a key, events by the SDK, a colleague, and the end of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import server as servers
from conftest import World
from reading import Client, read_back, send
from test_event_types import PAYLOADS, events_of

PASSWORD = "violet-harbor-9-kites"
PATIENCE_S = 20


class Browser:
    """A browser on a page of the server: it keeps cookies and says where it is."""

    def __init__(self, server: servers.Server) -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.url, headers={"origin": server.url}, timeout=30)

    def post(self, path: str, body: object = None, expect: int = 200) -> dict:
        return self._answer(self.http.post(path, json=body) if body is not None else self.http.post(path), expect)

    def get(self, path: str, expect: int = 200) -> dict:
        return self._answer(self.http.get(path), expect)

    def patch(self, path: str, body: object, expect: int = 204) -> dict:
        return self._answer(self.http.patch(path, json=body), expect)

    def delete(self, path: str, expect: int = 204) -> dict:
        return self._answer(self.http.delete(path), expect)

    @staticmethod
    def _answer(answer: httpx.Response, expect: int) -> dict:
        assert answer.status_code == expect, f"{answer.request.method} {answer.request.url}: {answer.text}"
        return answer.json() if answer.content else {}


def token(server: servers.Server, page: str, address: str) -> str:
    """What stands behind `#` in the link to a page that was written to the log for an address."""
    pattern = re.compile(rf"Mail to {re.escape(address)},.*?/{page}#(\S+)")
    return until(lambda: next(iter(pattern.findall(server.log.read_text(errors="replace"))[-1:]), None))


def until(ask: Callable[[], object]) -> object:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@pytest.fixture(params=["embedded", "cloud"])
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[servers.Server]:
    arguments = ["--deployment", "cloud", "--log", "info"]
    with servers.running(request.param, tmp_path, *arguments) as running:
        yield running


def test_a_team_signs_up_works_together_and_parts(
    cloud: servers.Server, connect: Callable[..., Client], world: World
) -> None:
    # Ann signs up, proves her address, and makes an org with a key.
    ann = Browser(cloud)
    ann.post("/v1/sign-up", {"email": "ann@example.com", "password": PASSWORD, "name": "Ann"}, expect=202)
    ann.post("/v1/verify", {"token": token(cloud, "verify", "ann@example.com"), "password": PASSWORD})
    ann.post("/v1/orgs", {"name": "Acme"}, expect=201)
    made = ann.post("/v1/keys", {"name": "ci", "scopes": ["events:write", "events:read"]}, expect=201)

    # The published SDK sends with it.
    client = connect("sync", cloud.url, made["api_key"])
    send(client, *events_of(world, PAYLOADS))
    assert read_back(client, world.session_id, len(PAYLOADS)).session.status == "completed"

    # Bob is invited as a viewer: he reads, and cannot write.
    ann.post("/v1/invitations", {"email": "bob@example.com", "role": "viewer"}, expect=201)
    bob = Browser(cloud)
    invitation = token(cloud, "invite", "bob@example.com")
    bob.post("/v1/invitations/join", {"token": invitation, "name": "Bob", "password": PASSWORD})
    assert [session["id"] for session in bob.get("/api/sessions")["sessions"]] == [world.session_id]
    bob.post("/v1/keys", {"name": "mine", "scopes": ["events:read"]}, expect=403)

    # He becomes an admin and makes a key.
    bobs_id = bob.get("/v1/me")["user_id"]
    ann.patch(f"/v1/members/{bobs_id}", {"role": "admin"})
    until(lambda: bob.http.get("/v1/keys").status_code == 200)
    bob.post("/v1/keys", {"name": "mine", "scopes": ["events:read"]}, expect=201)

    # He is removed, and is out within a second.
    ann.delete(f"/v1/members/{bobs_id}")
    removed = time.monotonic()
    until(lambda: bob.http.get("/api/sessions").status_code == 403)
    assert time.monotonic() - removed < 2

    # The audit log tells all of it, and who did it.
    entries = ann.get("/v1/audit?limit=100")["entries"]
    acts = [entry["act"] for entry in entries]
    for act in ["orgs.create", "keys.create", "invitations.create", "invitations.accept", "members.set_role", "members.remove"]:
        assert act in acts, acts
    assert made["api_key"] not in str(entries) and PASSWORD not in str(entries)

    # The org is deleted: its key is refused at once. What is purged later, and the receipt, are tested where time can be moved.
    answer = ann.http.request("DELETE", "/v1/org", json={"name": "Acme"})
    assert answer.status_code in (200, 202), answer.text
    with_key = {"authorization": f"Bearer {made['api_key']}"}
    until(lambda: httpx.get(f"{cloud.url}/api/sessions", headers=with_key).status_code in (401, 403))
    ann.http.get("/v1/me").raise_for_status()
