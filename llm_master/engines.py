"""Which engine serves which settings: objects with equal settings share one."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from typing import Any

from llm_master.dispatch.retry import forget_budgets
from llm_master.engine import Engine
from llm_master.errors import ConfigurationError
from llm_master.provider_configs import PROVIDER_CONFIGS, LLMConfig, effective
from llm_master.settings.declared import Declared
from llm_master.settings.environment import Environment, current_environment
from llm_master.settings.files import current_files

logger = logging.getLogger("llm_master.settings")

_ENGINES = 64
"""Engines kept although nobody holds one, so that a ``QueryLLM()`` per query finds the same again."""

_recent: OrderedDict[tuple[Any, ...], Engine] = OrderedDict()
_all: weakref.WeakSet[Engine] = weakref.WeakSet()
_engines_lock = threading.Lock()
_warned: set[str] = set()


def engine_for(config: LLMConfig | None) -> Engine:
    """The engine for these settings: an existing one wherever they are equal to its."""
    global _last_default
    default = config is None
    if default:
        environment = current_environment()
        files = current_files(environment)
        last = _last_default
        if last is not None and last[0] is environment and last[1] is files and last[2] == PROVIDER_CONFIGS.version:
            return last[3]
    if config is None:
        config = _DEFAULT
    # Cheap and exact: the same environment object, the same fields, the same table.
    environment, files = config.environment, config.files
    quick = (config.fingerprint(), environment, files, PROVIDER_CONFIGS.version)
    try:
        with _engines_lock:
            engine = _recent.get(quick)
            if engine is not None:
                _recent.move_to_end(quick)
                if default:
                    _last_default = (environment, files, PROVIDER_CONFIGS.version, engine)
                return engine
    except TypeError:
        raise ConfigurationError("a field of LLMConfig has a value of the wrong kind: keys, addresses and names are strings") from None
    snapshot = effective(config)
    with _engines_lock:
        engine = next((known for known in _all if known.snapshot == snapshot), None)
        if engine is None:
            for warning in snapshot.warnings:
                if warning not in _warned:
                    _warned.add(warning)
                    logger.warning("%s", warning)
            if (level := snapshot.options.log_level) is not None:
                from llm_master.logs import show

                show(level, snapshot.options.log_format)
            engine = Engine(snapshot)
            _all.add(engine)
        _recent[quick] = engine
        if len(_recent) > _ENGINES:
            _recent.popitem(last=False)
    return engine


def forget() -> None:
    """Begin anew: the next ``QueryLLM`` finds every key unused, no limit reached, no provider in trouble. For tests."""
    global _last_default
    with _engines_lock:
        _recent.clear()
        _all.clear()
        _last_default = None
    forget_budgets()


_last_default: tuple[Environment, Declared, int, Engine] | None = None
_DEFAULT = LLMConfig()
