"""Reading back what was written, and holding the server to it."""

from __future__ import annotations

from datetime import datetime

import asyncio
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from agentlensai import AgentLensClient, AgentLensEvent, AsyncAgentLensClient, EventQuery, NotFoundError, Session

import chain

# In the cloud form an accepted event is visible a little later. Far above what is promised, for slow machines.
VISIBLE_WITHIN_S = 60

T = TypeVar("T")


class Client:
    """Either client of the SDK behind the same, synchronous face. `answers` are the raw HTTP answers it got."""

    def __init__(self, kind: str, url: str, api_key: str | None) -> None:
        self.answers: list[httpx.Response] = []
        self._loop = asyncio.new_event_loop()
        self._client: AgentLensClient | AsyncAgentLensClient
        if kind == "sync":
            self._client = AgentLensClient(url, api_key=api_key)
            self._client._client.event_hooks = {"response": [self._record]}
        else:
            self._client = AsyncAgentLensClient(url, api_key=api_key)
            self._client._client.event_hooks = {"response": [self._record_async]}

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute
        return lambda *args, **kwargs: self._loop.run_until_complete(attribute(*args, **kwargs))

    def dispose(self) -> None:
        self.close()
        self._loop.close()

    def _record(self, response: httpx.Response) -> None:
        response.read()
        self.answers.append(response)

    async def _record_async(self, response: httpx.Response) -> None:
        await response.aread()
        self.answers.append(response)


@dataclass(frozen=True)
class Story:
    """A session as the server tells it: its row, and its events in the order of the chain."""

    session: Session
    events: list[AgentLensEvent]

    def payloads(self, event_type: str) -> list[dict[str, Any]]:
        return [event.payload for event in self.events if event.event_type == event_type]

    def types(self) -> list[str]:
        return [event.event_type for event in self.events]


def send(client: Any, *events: dict[str, Any]) -> dict[str, Any]:
    """What every integration of the SDK does to write an event. The answer is the server's."""
    return client._request("POST", "/api/events", json={"events": list(events)})


def eventually(check: Callable[[], T]) -> T:
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while True:
        try:
            return check()
        except (AssertionError, NotFoundError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def read_back(client: Any, session_id: str, count: int) -> Story:
    """The session once all its events are there, after checking everything the server says about it in three ways:
    the event list, the timeline with its chain, and the session's own figures."""

    def read() -> Story:
        session = client.get_session(session_id)
        timeline = client.get_session_timeline(session_id)
        assert (session.event_count, len(timeline.events)) == (count, count)
        assert timeline.chain_valid is True
        return Story(session, timeline.events)

    story = eventually(read)
    page = client.query_events(EventQuery(session_id=session_id, limit=500, order="asc"))
    assert (page.total, page.has_more) == (count, False)
    assert sorted(e.id for e in page.events) == sorted(e.id for e in story.events)
    assert len({e.id for e in story.events}) == count
    chain.check(story.events)
    _check_figures(story)
    return story


def _check_figures(story: Story) -> None:
    """The session's row is a recount of its events."""
    session, events = story.session, story.events
    responses = story.payloads("llm_response")
    assert session.tool_call_count == sum(e.event_type == "tool_call" for e in events)
    assert session.error_count == sum(
        e.severity in ("error", "critical") or e.event_type == "tool_error" for e in events
    )
    assert session.llm_call_count == len(responses)
    assert session.total_input_tokens == sum(_tokens(payload, "inputTokens") for payload in responses)
    assert session.total_output_tokens == sum(_tokens(payload, "outputTokens") for payload in responses)


def _tokens(payload: dict[str, Any], name: str) -> int:
    # AutoGen's and Semantic Kernel's handlers put the tokens beside the payload's other fields, without `usage`.
    return payload.get("usage", payload).get(name, 0)


def instant(text: str | None) -> datetime:
    """The instant of an RFC 3339 text: sessions show instants in UTC, events keep the text as it was sent."""
    assert text is not None
    return datetime.fromisoformat(text)
