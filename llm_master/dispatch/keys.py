"""API keys: how they are spoken of, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import attrs

from llm_master.dispatch.adapting import Adaptive
from llm_master.dispatch.limits import TOKENS, Announced, Limit
from llm_master.errors import ConfigurationError, ProviderError
from llm_master.types import RateLimitState

_LONG = 8
"""Characters from which the last four may be shown."""


@attrs.frozen
class Key:
    """One API key.

    Attributes:
        secret: The key itself. It is shown nowhere.
        source: Where it came from: a variable, or what else was given.
    """

    secret: str = attrs.field(repr=False)
    source: str

    @property
    def name(self) -> str:
        """How the key is called in receipts, logs and errors: its source and its last four characters."""
        # Of a short key, four characters would be too much of it.
        return f"{self.source} …{self.secret[-4:]}" if len(self.secret) >= _LONG else self.source

    @classmethod
    def checked(cls, secret: str, source: str) -> Key:
        """Make a key of what stands in ``source``, a variable or an argument.

        Raises:
            ConfigurationError: It holds a character that no HTTP header may hold.
        """
        secret = secret.strip()
        for position, character in enumerate(secret):
            if not character.isascii() or not character.isprintable() or character == " ":
                kind = "a space" if character == " " else "a line break" if character in "\r\n" else "no printable ASCII character"
                raise ConfigurationError(f"the key in {source} has {kind} at position {position + 1}: paste it again")
        return cls(secret, source)


Condition: TypeAlias = Literal["available", "invalid", "no funds"]

UNPROVEN = 4
"""Calls in flight that an unproven key takes until its first answer, where there are others."""

INVALID_FOR = 300.0
"""Seconds for which a refused key is not used, and for which one that may not use a model is not used for it."""

NO_FUNDS_FOR = 3600.0
"""Seconds after which a key without funds is tried again."""


@attrs.frozen
class Refusal:
    """What is kept of an error. Not the error itself, whose traceback would keep alive what the request held."""

    kind: type[ProviderError]
    text: str
    status: int | None = None
    code: str | None = None

    @classmethod
    def of(cls, error: Exception) -> Refusal:
        """What is to be kept of this one."""
        if isinstance(error, ProviderError):
            return cls(type(error), str(error), error.status, error.code)
        return cls(ProviderError, str(error))


class KeyState:
    """One key at work, whatever the model.

    Attributes:
        key: The key; ``None`` of a provider that wants none.
        name: What it is called.
        priority: Keys of a higher priority are used before the others.
        in_flight: Requests under way with it.
        uses: Requests sent with it in all.
        cap: How many may be in flight until the next answer: slow start, or one after a bar; ``None`` is no cap.
        condition: ``available``, or why it is not.
        until: When it may be tried again, on the monotonic clock.
        refusal: What the provider said, the last time it refused it.
        denied: Models that it may not use -> until when.
    """

    __slots__ = ("__weakref__", "cap", "condition", "denied", "in_flight", "key", "name", "priority", "refusal", "until", "uses")

    def __init__(self, key: Key | None, priority: int, *, alone: bool) -> None:
        self.key = key
        self.name = key.name if key is not None else None
        self.priority = priority
        self.in_flight = 0
        self.uses = 0
        self.cap: int | None = None if alone else UNPROVEN
        self.condition: Condition = "available"
        self.until = 0.0
        self.refusal: Refusal | None = None
        self.denied: dict[str, float] = {}

    def bar(self, condition: Condition, until: float, refusal: Refusal) -> None:
        """Not to be used until then, and then by one request at first."""
        self.condition, self.until, self.cap, self.refusal = condition, until, 1, refusal

    def proved(self, others: Iterable[KeyState]) -> None:
        """It answered. One that comes back has nothing to catch up with: that would be all there is to do, at once."""
        if self.condition != "available":
            self.uses = max(self.uses, min((other.uses for other in others), default=0))
        self.cap = None
        self.condition = "available"
        self.until = 0.0
        self.refusal = None


COOLING = (10.0, 30.0, 60.0, 120.0)
"""Seconds to wait after the first, second, ... 429 in a row that does not say how long."""

EXHAUSTED = 600.0
"""Seconds: what cools for longer is not too fast for its provider, but has used up what it may have until the reset."""

_UNREAD = 16
"""Of so many answers the headers are not read, after one that said that there is plenty left."""

_GROWN = 64
"""So many at once without a 429, and the provider's limit is taken for gone."""


class Share:
    """What one quota has of one model: a 429 means all keys of this quota, and no other model.

    Attributes:
        quota: The quota's name.
        model: Wire id.
        limits: What holds for this quota and model.
        in_flight: Requests under way.
        sent: All that went out so far: requests, tokens, input tokens, output tokens.
        until: A 429 forbids to send before that, on the monotonic clock.
        cap: How many may be in flight, after a 429: one, and one more with each answer, up to what 429s have taught.
        adaptive: What they have taught of limits that nobody declared; ``None`` before the first.
        limited: How many 429s there were since the last answer, those that were under way together counted once.
        counts_tokens: Whether the tokens of what goes out must be known, by what the headers said.
        unread: Of how many answers to come the headers need not be read, since there is plenty left: reading costs a tenth of a
            call.
    """

    __slots__ = (
        "_began",
        "_limited_at",
        "adaptive",
        "announced",
        "cap",
        "counts_tokens",
        "in_flight",
        "limited",
        "limits",
        "model",
        "quota",
        "sent",
        "unread",
        "until",
    )

    def __init__(self, quota: str, model: str, began: float) -> None:
        self._began = began
        self.adaptive: Adaptive | None = None
        self.quota = quota
        self.model = model
        self.limits: list[Limit] = []
        self.announced: dict[int, Announced] = {}
        self.in_flight = 0
        self.sent = [0, 0, 0, 0]
        self.until = 0.0
        self.cap: int | None = None
        self.limited = 0
        self._limited_at = 0
        self.counts_tokens = False
        self.unread = 0

    def cool(self, mark: int, now: float, asked: float | None, *, adapts: bool) -> float:
        """A 429 came for the ``mark``-th request; return for how many seconds nothing is sent.

        With ``adapts``, there is a limit that nobody declared, and it is to be learnt.
        """
        is_new = mark > self._limited_at
        if is_new:
            self.limited += 1
            self._limited_at = self.sent[0]
        if adapts and self.adaptive is not None:
            self.adaptive.limited(now, self.in_flight, asked, is_new=is_new)
        self.cap = 1
        if asked is None:
            wait = COOLING[min(self.limited, len(COOLING)) - 1]
        else:
            # Who says "at once" a third time and more does not mean it.
            wait = max(asked, 0.125 * 2.0 ** min(self.limited, 10) if self.limited > 2 else 0.0)
        self.until = max(self.until, now + wait)
        return self.until - now

    def adapt(self, now: float) -> None:
        """Begin to write down what goes out, to learn a limit of it."""
        self.adaptive = Adaptive(self._began, now, self.sent[0])
        self.limits += self.adaptive.windows

    def answered(self, now: float) -> None:
        """An answer came: the limit is not reached any more."""
        self.limited = 0
        adaptive = self.adaptive
        if adaptive is not None:
            self.cap = adaptive.answered(now, self.in_flight, self.cap)
        if self.cap is not None and (adaptive is None or adaptive.ceiling is None):
            # Twice as many with each round, as TCP starts: all that wait would only meet the limit again.
            self.cap = self.cap + 1 if self.cap < _GROWN else None

    def learn(self, marks: Sequence[int], state: RateLimitState | None, now: float) -> bool:
        """Take over what the headers of an answer say; whether other limits hold now than before.

        As long as half of what is allowed is left, it limits nobody, and costs nothing.
        """
        self.unread = _UNREAD
        if state is None:
            return False
        changed = False
        for kind, remaining, limit, reset in (
            (0, state.requests_remaining, state.requests_limit, state.requests_reset),
            (1, state.tokens_remaining, state.tokens_limit, state.tokens_reset),
            (2, state.input_tokens_remaining, state.input_tokens_limit, state.input_tokens_reset),
            (3, state.output_tokens_remaining, state.output_tokens_limit, state.output_tokens_reset),
        ):
            if remaining is None or reset is None:
                continue
            announced = self.announced.get(kind)
            if limit is not None and remaining * 2 >= limit:
                if announced is not None and announced.learn(marks[kind], remaining, limit, reset, now):
                    self.limits.remove(self.announced.pop(kind))
                    changed = True
                continue
            self.unread = 0
            if announced is None:
                announced = self.announced[kind] = Announced(kind, self.sent)
                self.limits.append(announced)
                changed = True
            announced.learn(marks[kind], remaining, limit, reset, now)
            self.counts_tokens = self.counts_tokens or kind >= TOKENS
        return changed
