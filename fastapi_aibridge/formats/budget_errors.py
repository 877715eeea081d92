"""Error codes of the vendors for an exhausted budget: clients then stop instead of retrying."""

OVER_BUDGET = "insufficient_quota"
"""The gateway's error code for an exhausted budget; also OpenAI's `type` and `code`."""
BILLING_ERROR = "billing_error"
"""Anthropic's `type` for the same error."""
