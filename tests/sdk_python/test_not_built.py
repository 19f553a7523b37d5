"""A call whose feature is not built yet is answered with 501 and the feature's name, never with a 404 or a guess."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from agentlensai import AgentLensError

from not_built import NOT_BUILT
from reading import Client

CALLS = [
    pytest.param(feature, call, id=method) for feature, calls in NOT_BUILT.items() for method, call in calls.items()
]


@pytest.mark.parametrize(("feature", "call"), CALLS)
def test_missing_feature_is_named(client: Client, feature: str, call: Callable[[Client], object]) -> None:
    with pytest.raises(AgentLensError) as refused:
        call(client)

    assert refused.value.status == 501
    assert feature in str(refused.value).lower()
    # One answer: 501 is nothing that a client tries again.
    (answer,) = client.answers
    body = answer.json()
    assert answer.headers["content-type"].startswith("application/json")
    assert body["status"] == 501
    assert feature in body["error"].lower()
    assert body["code"]
    assert body["request_id"]
