"""``with_structured_output``: a schema on its way to the model, and the answer's text on its way to an object."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal, TypeAlias, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from llm_master.errors import InvalidRequestError

Method: TypeAlias = Literal["json_schema", "function_calling", "json_mode"]

KEEP_INVALID = "_keep_invalid"
"""An argument of ours among those of a call: an answer that does not fit is still an answer, and the parser says what is wrong."""


def structured(
    model: BaseChatModel,
    schema: dict[str, Any] | type,
    method: Method,
    *,
    include_raw: bool,
    strict: bool | None,
    arguments: dict[str, Any],
) -> Runnable[Any, Any]:
    """The model with the schema bound to it, and behind it a parser; see ``ChatLLMMaster.with_structured_output``."""
    if method not in get_args(Method):
        raise InvalidRequestError(f"method is {method!r}: give one of {', '.join(get_args(Method))}")
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    # For traces, which show what was asked for.
    told = {"ls_structured_output_format": {"kwargs": {"method": method, "strict": strict}, "schema": schema}}
    parser: Any
    if method == "function_calling":
        bound = model.bind_tools([schema], tool_choice="any", strict=strict, **told, **arguments)
        if is_class:
            parser = PydanticToolsParser(tools=[schema], first_tool_only=True)
        else:
            parser = JsonOutputKeyToolsParser(key_name=convert_to_openai_tool(schema)["function"]["name"], first_tool_only=True)
    else:
        wanted = {"type": "json_object"} if method == "json_mode" else _response_format(schema, strict=strict, is_class=is_class)
        bound = model.bind(response_format=wanted, **({KEEP_INVALID: True} if include_raw else {}), **told, **arguments)
        parser = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
    if not include_raw:
        return bound | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _response_format(schema: dict[str, Any] | type, *, strict: bool | None, is_class: bool) -> Any:
    if is_class and strict is not False:
        return schema  # made strict for those who can
    if isinstance(schema, Mapping) and schema.get("type") == "json_schema":
        return schema  # as it goes on the wire
    if strict is None:
        return convert_to_json_schema(schema)
    converted = convert_to_json_schema(schema, strict=strict)
    return {"type": "json_schema", "json_schema": {"name": converted["title"], "schema": converted, "strict": strict}}
