"""The FOCUS 1.2 export for finance: its charges sum to the usage."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from fastapi_aibridge.recorder.export import ExportFormat, export
from fastapi_aibridge.recorder.focus import FOCUS_COLUMNS
from fastapi_aibridge.recorder.memory import MemoryRecorder
from fastapi_aibridge.recorder.recorder import InterceptionQuery
from fastapi_aibridge.recorder.records import Facts, Status
from fastapi_aibridge.recorder.sql import SQLRecorder
from fastapi_aibridge.recorder.usage import UsageQuery

from .builders import ending, interception, usage

pytestmark = pytest.mark.anyio

STARTED = datetime(2026, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)
PRICE = {"source": "settings", "date": "2026-12-31", "input": 1.5, "cache_write_1h": 3.0, "calls": {"x": 1}}
MANDATORY = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd",
    "ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity",
    "PricingUnit", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName",
)  # fmt: skip


async def charges(store: MemoryRecorder | SQLRecorder, **query: Any) -> list[dict[str, str]]:
    chunks = [chunk async for chunk in export(store, InterceptionQuery(**query), format=ExportFormat.FOCUS)]
    return list(csv.DictReader(io.StringIO(b"".join(chunks).decode())))


async def record(recorder: MemoryRecorder | SQLRecorder, cost: int | None, **given: Any) -> None:
    begun = interception(**{"started_at": STARTED, **given})
    await recorder.start(begun)
    facts = Facts(token_usages=[usage(2, price=PRICE if cost is not None else None, cost=cost)])
    await recorder.end(begun.id, ending(cost=cost, ended_at=STARTED + timedelta(seconds=2)), facts)


async def test_charges_sum_to_the_usage(url: str) -> None:
    """Charges sum to the usage to the micro-dollar, over several pages; running interceptions are charged later."""
    async with SQLRecorder(url, retention=0) as recorder:
        for number in range(250):
            await record(recorder, 333_333 + number, model=f"m{number % 3}")
        await record(recorder, None, model="unpriced")
        await recorder.start(interception(started_at=STARTED))
        found = await charges(recorder)
        (total,) = await recorder.usage(UsageQuery())
        (of_one_model,) = await recorder.usage(UsageQuery(model="m1"))
        assert len(found) == 251
        for column in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"):
            assert sum(Decimal(row[column]) for row in found) * 1_000_000 == total.cost
        of_one = await charges(recorder, model="m1")
        assert sum(Decimal(row["BilledCost"]) for row in of_one) * 1_000_000 == of_one_model.cost


async def test_a_charge_has_all_columns() -> None:
    recorder = MemoryRecorder()
    await record(
        recorder, 1_234_567, initiator_id="alice", model="gpt-5", groups=("staff",), metadata={"team": "a", "deep": {}},
        credential_kind="byok",
    )  # fmt: skip
    (row,) = await charges(recorder)
    assert tuple(row) == FOCUS_COLUMNS
    assert {name for name in MANDATORY if not row[name]} == {"ChargeClass"}
    expected = {
        "BilledCost": "1.234567",
        "BillingCurrency": "USD",
        "BillingPeriodStart": "2026-12-01T00:00:00Z",
        "BillingPeriodEnd": "2027-01-01T00:00:00Z",
        "ChargePeriodStart": "2026-12-31T23:59:59Z",
        "ChargePeriodEnd": "2027-01-01T00:00:02Z",
        "ChargeCategory": "Usage",
        "ConsumedQuantity": "20",
        "ConsumedUnit": "Tokens",
        "ProviderName": "OpenAI",
        "SkuId": "gpt-5",
        "SubAccountId": "alice",
        "x_HasPrice": "true",
        "x_InputTokens": "2",
        "x_PriceSource": "settings",
        "x_Status": "completed",
        "x_CredentialKind": "byok",
    }
    assert {name: row[name] for name in expected} == expected
    assert json.loads(row["SkuPriceDetails"]) == {"x_Input": 1.5, "x_CacheWrite1H": 3.0}
    tags = json.loads(row["Tags"])
    assert (tags["team"], tags["aibridge/group/staff"]) == ("a", True)
    assert "deep" not in tags


async def test_a_cost_that_is_not_known_is_marked() -> None:
    recorder = MemoryRecorder()
    await record(recorder, None)
    (row,) = await charges(recorder)
    assert (row["BilledCost"], row["x_HasPrice"]) == ("0.000000", "false")


async def test_what_clients_chose_runs_in_no_spreadsheet() -> None:
    recorder = MemoryRecorder()
    await record(recorder, 1, model="=cmd()", initiator_id="@x", metadata={"=a": "=b"})
    (row,) = await charges(recorder)
    assert (row["SkuId"], row["SubAccountId"]) == ("'=cmd()", "'@x")
    assert "=" not in row["Tags"]
    assert json.loads(row["Tags"])["=a"] == "=b"


async def test_json_lines_and_csv_have_the_cost() -> None:
    recorder = MemoryRecorder()
    await record(recorder, 15)
    begun = interception(id="failed", started_at=STARTED - timedelta(days=1))
    await recorder.start(begun)
    await recorder.end(begun.id, ending(status=Status.FAILED, cost=0, cost_estimated=True), Facts())
    lines = b"".join([chunk async for chunk in export(recorder)]).splitlines()
    assert [json.loads(line)["cost_usd"] for line in lines] == [0.000015, 0]
    table = b"".join([chunk async for chunk in export(recorder, format=ExportFormat.CSV)]).decode()
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(row["cost_usd"], row["cost_estimated"]) for row in rows] == [("0.000015", "false"), ("0.000000", "true")]
