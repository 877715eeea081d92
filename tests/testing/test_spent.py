from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fastapi_aibridge import AIBridge, Settings
from fastapi_aibridge.testing import MemoryRecorder, Reply, ScriptedProvider, Spent, Usage, override_providers

PRICES = {"openai": {"gpt-5": {"input": 1, "output": 10}}}


@pytest.mark.parametrize("model", ["gpt-5", "nobody-knows"])
def test_what_a_test_spent_is_added_up(model: str) -> None:
    """Costs are exact; too high a cost fails and names the dearest call; a model without a price fails too."""
    app, recorder = FastAPI(), MemoryRecorder()
    aibridge = AIBridge(Settings(prices=PRICES, client_keys={"alice": "k"}))
    app.include_router(aibridge.router, prefix="/ai")
    provider = ScriptedProvider(Reply("Hello", usage=Usage(input_tokens=8, output_tokens=10)))
    spent = Spent(recorder)
    assert spent.usd == 0
    with override_providers(aibridge, provider, recorder=recorder), TestClient(app) as client:
        for _ in range(2):
            body = {"model": model, "input": "Hello"}
            client.post("/ai/openai/v1/responses", json=body, headers={"Authorization": "Bearer k"}).raise_for_status()
    if model != "gpt-5":
        with pytest.raises(AssertionError, match="'nobody-knows' has no price"):
            spent.at_most(1)
        return
    assert spent.usd == 0.000216
    spent.exactly(0.000216)
    spent.at_most(0.0003)
    with pytest.raises(AssertionError, match=r"USD 0.000216 were spent, more than 0.000200:\n  0.000108 gpt-5"):
        spent.at_most(0.0002)
    with pytest.raises(AssertionError, match=r"not 0\.000217"):
        spent.exactly(0.000217)
