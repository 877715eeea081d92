"""How the vendors tell that there is no money left: clients then stop instead of trying again."""

OVER_BUDGET = "insufficient_quota"
"""The code of such an error; OpenAI's `type` and `code`."""
BILLING_ERROR = "billing_error"
"""Anthropic's `type`."""
