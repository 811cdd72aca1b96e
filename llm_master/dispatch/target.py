"""Where a query goes: a resolved name, with all that is worked out once for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llm_master.dispatch.line import Line
from llm_master.dispatch.resolve import Route
from llm_master.dispatch.retry import budget_of
from llm_master.model_rows import ModelConfig
from llm_master.pricing import PriceList
from llm_master.rows import ProviderConfig
from llm_master.settings.declared import ModelSettings


class Target:
    """A resolved name with all that is worked out once for it.

    Attributes:
        name: The name as it was asked for.
        route: Provider, wire id and options.
        row: The provider's row.
        model: What is registered of the model, or ``None``.
        line: Where requests to it get their key.
        budget: What repetitions this provider is allowed.
        renames: Options that provider or model know under another name.
        lacking: What the model is known not to do.
        is_refused: It is no model to be queried: it embeds, ranks or judges.
        max_output_tokens: How much the model may write, if that is known.
        settings: The system instruction that settings have for it, or ``None``.
        streams: Whether it is asked for a stream; ``False`` where it is known not to have one.
        prices: The model's prices, or ``None`` if they are not known.
        look_up: Finds the prices of a model nobody registered, off the event loop; ``None`` once that is done.
    """

    __slots__ = (
        "budget",
        "is_refused",
        "lacking",
        "line",
        "look_up",
        "max_output_tokens",
        "model",
        "name",
        "prices",
        "renames",
        "route",
        "row",
        "settings",
        "streams",
    )

    def __init__(
        self,
        name: str,
        route: Route,
        row: ProviderConfig,
        model: ModelConfig | None,
        look_up: Callable[[], ModelConfig | None] | None,
        line: Line,
        settings: ModelSettings | None = None,
    ) -> None:
        self.name = name
        self.route = route
        self.row = row
        self.settings = settings
        self.model = model
        self.line = line
        self.budget = budget_of(row.base_url or row.name)
        known = model.capabilities if model is not None and isinstance(model.capabilities, Mapping) else None
        self.lacking = frozenset(word for word, can in known.items() if not can) if known else frozenset()
        makes = known is not None and any(known.get(word) for word in ("image_output", "audio_output", "speech"))
        self.is_refused = "chat" in self.lacking and not makes and route.generator is None
        self.streams = model is None or model.supports_streaming
        self.renames: Mapping[str, str | None] = {**row.renames, **(model.renames if model is not None else {})}
        self.max_output_tokens = model.max_output_tokens if model is not None else None
        self.prices = PriceList(model) if model is not None else None
        self.look_up = look_up
