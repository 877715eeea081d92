"""Interceptions as charges of FOCUS 1.2, the FinOps Open Cost and Usage Specification (focus.finops.org).

One row is one interception: its pricing unit is the request, since its tokens have several prices, and its consumed
unit is the token. The billed cost equals the list cost, because a provider's discounts are not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from .printable import cell, json_cell
from .records import InterceptionRecord
from .rows import NO_TOKENS, add_tokens
from .text import dump

FOCUS_COLUMNS = (
    "AvailabilityZone", "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType",
    "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "CapacityReservationId", "CapacityReservationStatus",
    "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
    "CommitmentDiscountCategory", "CommitmentDiscountId", "CommitmentDiscountName", "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus", "CommitmentDiscountType", "CommitmentDiscountUnit", "ConsumedQuantity",
    "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost", "InvoiceId", "InvoiceIssuerName",
    "ListCost", "ListUnitPrice", "PricingCategory", "PricingCurrency", "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice", "PricingQuantity", "PricingUnit", "ProviderName",
    "PublisherName", "RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType", "ServiceCategory",
    "ServiceName", "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId",
    "SubAccountName", "SubAccountType", "Tags", "x_CostEstimated", "x_HasPrice", "x_InputTokens", "x_OutputTokens",
    "x_CacheReadTokens", "x_CacheWriteTokens", "x_PriceSource", "x_PriceDate", "x_Status", "x_CredentialKind",
)  # fmt: skip
"""All columns of version 1.2 in the specification's order, then our own."""

_COSTS = ("BilledCost", "ContractedCost", "ContractedUnitPrice", "EffectiveCost", "ListCost", "ListUnitPrice")
_VENDORS = {"openai": "OpenAI", "anthropic": "Anthropic"}
_OF_PRICES = ("source", "date")


def focus_cells(record: InterceptionRecord) -> list[object] | None:
    """Return the values of `FOCUS_COLUMNS`; None while the interception runs, since nothing is charged yet.

    An unknown cost becomes zero, because the specification has no value for it; `x_HasPrice` is then false.
    """
    begun, ending, usages = record.interception, record.ending, record.facts.token_usages
    if ending is None:
        return None
    started = begun.started_at.astimezone(UTC)
    cost = _dollars(ending.cost or 0)
    tokens = add_tokens(NO_TOKENS, usages)
    vendor = _VENDORS.get(begun.provider_type, begun.provider_type)
    # If a budget made the gateway request a cheaper model, that one is billed.
    model = begun.upstream_model or begun.model
    price = next((usage.price for usage in usages if usage.price is not None), {})
    values: dict[str, object] = {
        **dict.fromkeys(_COSTS, cost),
        "BillingAccountId": begun.provider,
        "BillingAccountName": begun.provider,
        "BillingAccountType": "Provider",
        "BillingCurrency": "USD",
        "BillingPeriodStart": _moment(_month(started)),
        "BillingPeriodEnd": _moment(_month(_month(started) + timedelta(days=32))),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{model} {begun.route}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _moment(started),
        "ChargePeriodEnd": _moment(max(started, ending.ended_at.astimezone(UTC)) + timedelta(seconds=1)),
        "ConsumedQuantity": sum(tokens),
        "ConsumedUnit": "Tokens",
        "InvoiceIssuerName": vendor,
        "PricingCategory": "Standard",
        "PricingCurrency": "USD",
        "PricingCurrencyContractedUnitPrice": cost,
        "PricingCurrencyEffectiveCost": cost,
        "PricingCurrencyListUnitPrice": cost,
        "PricingQuantity": 1,
        "PricingUnit": "Requests",
        "ProviderName": vendor,
        "PublisherName": vendor,
        "ResourceId": begun.id,
        "ResourceName": model,
        "ResourceType": "Model request",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": f"{vendor} API",
        "ServiceSubcategory": "Generative AI",
        "SkuId": model,
        "SkuMeter": "Model requests",
        "SkuPriceId": f"{begun.provider}/{model}",
        "SubAccountId": begun.initiator_id,
        "SubAccountName": begun.initiator_id,
        "SubAccountType": "Initiator",
        "x_CostEstimated": "true" if ending.cost_estimated else "false",
        "x_HasPrice": "false" if ending.cost is None else "true",
        "x_InputTokens": tokens[0],
        "x_OutputTokens": tokens[1],
        "x_CacheReadTokens": tokens[2],
        "x_CacheWriteTokens": tokens[3],
        "x_PriceSource": price.get("source"),
        "x_PriceDate": price.get("date"),
        "x_Status": str(ending.status),
        "x_CredentialKind": begun.credential_kind,
    }
    cells = {name: cell(value) if isinstance(value, str) else value for name, value in values.items()}
    cells["SkuPriceDetails"] = json_cell(dump(_details(price))) if price else None
    cells["Tags"] = json_cell(dump(_tags(record)))
    return [cells.get(name) for name in FOCUS_COLUMNS]


def _dollars(cost: int) -> str:
    return f"{cost // 1_000_000}.{cost % 1_000_000:06d}"


def _month(moment: datetime) -> datetime:
    """Return the beginning of the month."""
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _details(price: Mapping[str, Any]) -> dict[str, float]:
    """Return the prices in US dollars per million tokens, under names of our own."""
    return {
        f"x_{''.join(part.title() for part in kind.split('_'))}": value
        for kind, value in price.items()
        if kind not in _OF_PRICES and isinstance(value, float | int)
    }


def _tags(record: InterceptionRecord) -> dict[str, Any]:
    """Return the tags for cost allocation: the principal's metadata and groups, client, session and agent."""
    begun = record.interception
    plain = {key: value for key, value in begun.metadata.items() if isinstance(value, str | int | float | bool)}
    own = {"client": begun.client, "session_id": begun.session_id, "agent_id": begun.agent_id}
    tags = {f"aibridge/{name}": value for name, value in own.items() if value}
    return {**plain, **tags, **{f"aibridge/group/{group}": True for group in begun.groups}}
