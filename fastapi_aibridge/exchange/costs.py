"""The cost of an interception: of each upstream message by its reported usage, or estimated from its text."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ..formats.large_text import BodyText
from ..formats.relayed_text import RelayedText, tokens_of_answer, tokens_of_request
from ..formats.request import ModelRequest
from ..money.price import Price
from ..money.prices import Prices
from ..providers.provider import Provider
from ..recorder import Facts, Status, TokenUsage


class Costs:
    """The costs of one interception, at the prices of the moment at which it started.

    `_body`, `_so_far`, `answer` and `text` change with each call; `total`, `estimated` and `unpriced` with each
    message.
    """

    __slots__ = (
        "_body", "_format", "_moment", "_prices", "_provider", "_request", "_so_far", "answer", "estimated", "text",
        "total", "unpriced",
    )  # fmt: skip

    def __init__(
        self, prices: Prices, provider: Provider, request: ModelRequest, format_name: str, moment: datetime
    ) -> None:
        self._prices = prices
        self._provider = provider
        self._request = request
        self._format = format_name
        self._moment = moment
        self._body: BodyText | None = None
        self._so_far: TokenUsage | None = None
        """What was seen of a response that goes on in the background."""
        self.text = RelayedText(format_name)
        """The text of the current stream so far."""
        self.answer = b""
        """The current response if it is no stream."""
        self.total: int | None = 0
        """Micro-dollars of all messages so far; None if one of them has no price."""
        self.estimated = False
        self.unpriced = False

    async def ready(self) -> None:
        """Wait for the prices, which are loaded shortly after the app's start."""
        if not self._prices.is_ready:
            await self._prices.ready()

    def called(self, body: BodyText) -> None:
        """Note the start of a call, which costs something even if no response arrives."""
        self._body = body
        self.text = RelayedText(self._format)
        self.answer = b""

    def refused(self) -> None:
        """Note that the call has cost nothing, because the provider did not carry it out."""
        self._body = None

    def failed(self) -> None:
        """Note the provider's error. The call has cost nothing if the error came before any text."""
        if self._body is not None and not self._made():
            self._body = None

    def wait(self, facts: Facts) -> None:
        """Note that the cost of the call is not known yet: the provider tells it later, or never. `facts` are those of
        the message so far.
        """
        if self._body is not None:
            self.answer = b""  # it has no output yet
            self._so_far = self._seen(self._body)
            self._so_far.service_tier = facts.service_tier
            self.text = RelayedText(self._format)
        self._body = self.total = None

    def saw(self, tokens: int) -> None:
        """Note further output of a response in the background, which its client has read."""
        if self._so_far is None:
            self._so_far = TokenUsage(message_id="", partial=True, cost_estimated=True)
        self._so_far.output_tokens += tokens

    def settle(self, facts: Facts, outcome: Status | None = None) -> None:
        """Add the cost of a message to its facts. If its provider has reported no usage, add one that is estimated from
        the text. `outcome` is the interception's status if it ends here.
        """
        body, self._body = self._body, None
        usages = facts.token_usages
        if not usages and (seen := self._unreported(body, outcome)) is not None:
            if self._price_of(self._request.model, facts.model) is None:
                self._unpriced(self._request.model)
                return
            seen.service_tier = facts.service_tier or seen.service_tier
            usages.append(seen)
        if usages and self.total is None and not self.unpriced:
            self.total = 0
        for usage in usages:
            self._price(usage, facts, body)

    def _unreported(self, body: BodyText | None, outcome: Status | None) -> TokenUsage | None:
        """Estimate the usage of a message without a reported one; None if it costs nothing, or is not known yet."""
        if body is not None:
            return self._seen(body)
        seen = self._so_far
        if seen is None or outcome is None or outcome is Status.INTERRUPTED:
            return None
        return None if outcome is Status.FAILED and not seen.output_tokens else seen

    def _seen(self, body: BodyText) -> TokenUsage:
        """Estimate the usage of a message without a reported one."""
        return TokenUsage(
            message_id="",
            input_tokens=tokens_of_request(body),
            output_tokens=self._made(),
            partial=True,
            cost_estimated=True,
        )

    def _made(self) -> int:
        return tokens_of_answer(self.answer) if self.answer else self.text.tokens()

    def _price(self, usage: TokenUsage, facts: Facts, body: BodyText | None) -> None:
        price = self._price_of(self._request.model, facts.model)
        if price is None:
            self._unpriced(self._request.model)
            return
        billed = usage
        in_part = usage.partial and not facts.usage_settled
        if not usage.output_tokens and not usage.cost_estimated:
            # The provider reported no output, or impossible numbers, although there may be text.
            in_part = in_part or self._made() > 0
        if in_part and not usage.cost_estimated and body is not None:
            billed = self._told_in_part(usage, body)
        if facts.server_calls:
            told = {name: number for name, number in billed.extra.items() if number}
            billed = replace(billed, extra={**facts.server_calls, **told})
        rates = price.rates(billed)
        cost: int | None = price.cost(billed)
        if facts.parts and not usage.cost_estimated:
            cost = self._cost_of_parts(facts, price)
        usage.cost = cost
        usage.price = price.as_recorded(rates)
        self.estimated = self.estimated or usage.cost_estimated
        if cost is not None and self.total is not None:
            self.total += cost

    def _told_in_part(self, usage: TokenUsage, body: BodyText) -> TokenUsage:
        """Complete a partial usage for billing: its reported counts, and an estimate of the text since then."""
        usage.cost_estimated = True
        told = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        given = usage.input_tokens if told else tokens_of_request(body)
        made = max(usage.output_tokens, self._made())
        return TokenUsage(
            message_id="",
            input_tokens=given,
            output_tokens=made,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            extra=usage.extra,
            service_tier=usage.service_tier,
        )

    def _cost_of_parts(self, facts: Facts, price: Price) -> int | None:
        """Sum up the cost of a message's parts, each at the price of its model; None if one has no price."""
        total = 0
        for model, part in facts.parts:
            of_part = price if not model else self._price_of(model, "")
            if of_part is None:
                self._unpriced(model)
                return None
            total += of_part.cost(part)
        return total

    def _unpriced(self, model: str) -> None:
        self.unpriced, self.total = True, None
        self._prices.missing(self._provider, model)

    def _price_of(self, model: str, answered: str) -> Price | None:
        """Return the price of the requested model or else, for a deployment or an alias, of the model that answered. If
        the request named several models, the one that answered comes first.
        """
        if answered and self._request.alternatives:
            model, answered = answered, model
        prices, provider, moment = self._prices, self._provider, self._moment
        price = prices.price(provider, model, moment)
        if price is None and answered and answered != model:
            price = prices.price(provider, answered, moment)
            if price is not None:
                prices.answered(provider, model, answered)
        return price or prices.expected(provider, model, moment)
