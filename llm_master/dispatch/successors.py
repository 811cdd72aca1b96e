"""Who takes over where a target fails: the other targets of a route, or fallbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from llm_master.dispatch.routes import Member, Route
from llm_master.errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from llm_master.dispatch.call import Call


class Successors:
    """What is left to be asked, in order: targets of a route first, then fallbacks.

    Args:
        fallbacks: Calls that are ready to take over.
        route: The route that is being gone through.
        build: Makes the call for a target of it.

    Attributes:
        member: The target of the route that is being asked; ``None`` for anybody else.
    """

    __slots__ = ("_build", "_fallbacks", "_route", "_skipped", "_tried", "member")

    def __init__(self, fallbacks: Iterable[Call] = (), route: Route | None = None, build: Callable[[Member], Call] | None = None) -> None:
        self._fallbacks = list(fallbacks)
        self._route = route
        self._build = build
        self._tried: set[Member] = set()
        self._skipped: list[str] = []
        self.member: Member | None = None

    def __bool__(self) -> bool:
        return bool(self._fallbacks) or (self._route is not None and len(self._tried) < len(self._route.members))

    def add(self, fallbacks: Iterable[Call]) -> None:
        """Fallbacks, to come last."""
        self._fallbacks += fallbacks

    def take(self, *, of_route: bool = True, fallback: bool = True) -> Call | None:
        """The next, or ``None``.

        Args:
            of_route: Another target of the route may answer.
            fallback: A fallback may answer.
        """
        if of_route and self._route is not None and self._build is not None:
            while (member := self._route.pick(self._tried)) is not None:
                self._tried.add(member)
                try:
                    call = self._build(member)
                except (InvalidRequestError, ConfigurationError) as exc:
                    # It cannot be asked this, or at all; another can.
                    self._skipped.append(f"{member.model}: {exc}")
                    continue
                self.member = member
                return call
        if fallback and self._fallbacks:
            self.member = None
            return self._fallbacks.pop(0)
        return None

    def has_free(self) -> bool:
        """Whether another target of the route could be asked at once."""
        if self._route is None:
            return False
        now = self._route.clock.monotonic()
        return any(member not in self._tried and member.is_free(now) for member in self._route.members)

    @property
    def skipped(self) -> list[str]:
        """The targets that could not be asked, and why."""
        return self._skipped

    @property
    def name(self) -> str | None:
        """The name of the route."""
        return self._route.name if self._route is not None else None

    @property
    def strategy(self) -> str | None:
        """Its strategy."""
        return self._route.strategy if self._route is not None else None
