"""Who observes the queries of one engine: the user's hooks, the metrics, OpenTelemetry."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

import attrs

from llm_master.dispatch.hooks import Hooks, Observer
from llm_master.dispatch.pools import Pools
from llm_master.errors import ConfigurationError
from llm_master.rows import ProviderConfig
from llm_master.settings.options import Options

logger = logging.getLogger("llm_master.telemetry")


class Observing:
    """What an engine hands to its calls.

    Attributes:
        hooks: Who listens; ``None`` where nobody does, so that a call pays one comparison for it.
        undecided: Whether OpenTelemetry is still to be looked for: settings do not say, and the program had none set up so far.
    """

    def __init__(self, options: Options, rows: Mapping[str, ProviderConfig], pools: Pools) -> None:
        self._rows = rows
        observers: list[Observer] = []
        if options.metrics:
            from llm_master.metrics import METRICS

            METRICS.watch(pools)
            observers.append(METRICS)
        self.undecided = options.telemetry is None
        if options.telemetry:
            observers.append(self._telemetry(content=options.telemetry == "content"))
        listens = options.on_attempt is not None or options.on_response is not None or observers
        self.hooks = Hooks(options.on_attempt, options.on_response, tuple(observers)) if listens else None

    def look(self) -> Hooks | None:
        """Who listens, OpenTelemetry among them once the program has set it up.

        Nothing is imported for it: what the program has set up, it has imported.
        """
        if "opentelemetry" in sys.modules and (_is_set_up("trace", "get_tracer_provider") or _is_set_up("metrics", "get_meter_provider")):
            self.undecided = False
            hooks = self.hooks or Hooks()
            try:
                self.hooks = attrs.evolve(hooks, observers=(*hooks.observers, self._telemetry(content=False)))
            except Exception as exc:  # nobody asked for it, so that no call may fail of it
                logger.warning("OpenTelemetry is set up, and cannot be used: %s: %s", type(exc).__name__, exc)
        return self.hooks

    def _telemetry(self, *, content: bool) -> Observer:
        try:
            from llm_master.telemetry import Telemetry
        except ModuleNotFoundError as exc:
            if exc.name is None or not exc.name.startswith("opentelemetry"):
                raise
            raise ConfigurationError(
                "telemetry is asked for, and opentelemetry-api is not installed: pip install 'llm_master[otel]', or leave telemetry out"
            ) from None
        return Telemetry({row.name: row.telemetry_name or row.name for row in self._rows.values()}, content=content)


def _is_set_up(what: str, getter: str) -> bool:
    module = sys.modules.get(f"opentelemetry.{what}")
    # The API's own providers stand in until there is a real one, and do nothing.
    # While another thread imports it, it lacks this.
    provider = getattr(module, getter, None)
    return provider is not None and not type(provider()).__module__.startswith(f"opentelemetry.{what}")
