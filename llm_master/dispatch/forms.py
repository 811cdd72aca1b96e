"""An answer of the form that was asked for, or the question once more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_master.errors import InvalidOutputError
from llm_master.types import LLMResponse

if TYPE_CHECKING:
    from llm_master.dispatch.call import Call


async def in_form(call: Call, response: LLMResponse) -> LLMResponse:
    """Read the form that was asked for; where it is not there, ask once more if that was agreed."""
    # Loaded when a query wants a form, which few do.
    from llm_master.structured import finish, repair_messages

    assert call.wanted is not None
    repaired = call.repair is None
    try:
        finish(call.wanted, call.how, response, repaired=repaired)
    except InvalidOutputError as exc:
        otherwise = "raised: " + ("it was asked once more already" if repaired else "repair=True would ask once more")
        call.note_invalid(exc, "asked once more" if call.repair else otherwise)
        if not call.repair:
            raise
        call.repair = None
        call.spent = (call.receipt.cost, call.receipt.cost_state)
        call.messages = repair_messages(call.messages, response, exc.__cause__ or exc)
        again: LLMResponse = await call.answer()
        return again
    if call.hooks is not None:
        call.hooks.response(response)
    return response
