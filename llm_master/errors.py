"""Everything that llm_master raises.

::

    LLMError                                  every error of this library; carries .receipt
    ├── ConfigurationError                    a table, a file, a variable or an argument is wrong
    │   ├── MissingApiKeyError                the provider found needs a key that is not set
    │   └── UnknownModelError                 no provider serves this name; offers the nearest
    ├── PricingError                          a price that cannot be one
    ├── BudgetExceededError                   the call would pass a budget
    ├── DeadlineExceededError                 the query's deadline passed, or would pass while waiting
    └── ProviderError                         the provider failed or refused: .status .provider .model
        │                                     .request_id .retry_after .code
        ├── AuthenticationError               401, or 403 whose body blames the key
        ├── PermissionDeniedError             any other 403
        ├── InsufficientFundsError            402, insufficient_quota
        ├── RateLimitError                    429
        ├── ServerError                       5xx, an error or garbage under 200
        ├── ProviderConnectionError           no connection, or it broke
        ├── RequestTimeoutError               408, or the attempt's timeout (also a builtin TimeoutError)
        ├── InvalidRequestError               any other 4xx; never sent again
        │   ├── ModelNotFoundError            404 on a model
        │   ├── ContextWindowExceededError    more tokens than the model takes
        │   └── ContentPolicyError            refused by a content filter, or flagged by moderation: .categories
        ├── InvalidOutputError                the answer is not what response_format asked for; .response holds it
        └── StreamInterruptedError            broken after output began; .response holds what came

All of them can be pickled and copied. None holds an API key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_master.types import LLMResponse, Receipt


class LLMError(Exception):
    """Base of every error of this library.

    Attributes:
        receipt: What had been tried when it was raised; ``None`` before the first attempt.
    """

    receipt: Receipt | None = None


class ConfigurationError(LLMError):
    """A table, a file, a variable or an argument is wrong. The message says which, and the remedy."""


class MissingApiKeyError(ConfigurationError):
    """The provider needs an API key and none is set. The message names the variables looked at."""


class UnknownModelError(ConfigurationError):
    """No provider of the table serves this name. The message offers the nearest names."""


class PricingError(LLMError):
    """A price that cannot be one, or a currency that does not fit."""


class BudgetExceededError(LLMError):
    """The call would pass a budget; nothing was sent."""


class DeadlineExceededError(LLMError):
    """The query's ``deadline`` passed."""


class ProviderError(LLMError):
    """The provider failed or refused.

    Attributes:
        status: HTTP status, or ``None`` where there was none.
        provider: Name of the provider's row.
        model: The model as it was sent.
        request_id: The provider's own id of the request.
        retry_after: Seconds after which the provider asks to come again.
        code: The provider's own error code or type.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        provider: str | None = None,
        model: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.provider = provider
        self.model = model
        self.request_id = request_id
        self.retry_after = retry_after
        self.code = code


class AuthenticationError(ProviderError):
    """401, or a 403 whose body blames the key."""


class PermissionDeniedError(ProviderError):
    """403: the key is valid and may not do this."""


class InsufficientFundsError(ProviderError):
    """402, or a 429 that says the quota is used up for good."""


class RateLimitError(ProviderError):
    """429. ``retry_after`` holds the wait in seconds where the provider said one."""


class ServerError(ProviderError):
    """5xx, an error object under 200, or an answer that cannot be read."""


class ProviderConnectionError(ProviderError):
    """No connection, or one that broke before the answer was whole."""


class RequestTimeoutError(ProviderError, TimeoutError):
    """One attempt took longer than its ``timeout``, or the provider said 408."""


class InvalidRequestError(ProviderError):
    """The request is wrong, so that no repetition and no other key would help."""


class ModelNotFoundError(InvalidRequestError):
    """The provider does not know this model, or not for this key."""


class ContextWindowExceededError(InvalidRequestError):
    """The request holds more tokens than the model takes."""


class ContentPolicyError(InvalidRequestError):
    """A content filter refused the request or the answer, or ``moderation=True`` flagged the request before it was sent.

    Attributes:
        categories: What it falls into, by the names of whoever judged; empty where that was not said.
    """

    categories: tuple[str, ...] = ()


class InvalidOutputError(ProviderError):
    """The answer is not what ``response_format`` asked for. It was paid for, and nothing of it is lost.

    Attributes:
        response: The answer as it came: its text is ``response.content``.
    """

    response: LLMResponse | None = None


class StreamInterruptedError(ProviderError):
    """A stream broke after output began.

    Attributes:
        response: What had arrived: partial ``content``, ``usage`` where it was known.
    """

    response: LLMResponse | None = None
