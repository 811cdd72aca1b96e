"""The options of a call: which names are known, and under which names they go out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from llm_master.errors import InvalidRequestError

KNOWN_OPTIONS = frozenset(
    # OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat/create
    "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens metadata modalities "
    "moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_retention reasoning_effort response_format "
    "safety_identifier seed service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user "
    "verbosity web_search_options "
    # What others added to it, here so that they are not taken for misspellings.
    "best_of cache_prompt chat_template_kwargs clear_thinking documents dynatemp_range echo enable_thinking grammar guided_choice "
    "guided_grammar guided_json guided_regex id_slot ignore_eos include_reasoning json_schema keep_alive length_penalty min_p "
    "min_tokens mirostat mirostat_eta mirostat_tau models n_predict n_probs num_ctx num_predict plugins preset prompt_mode provider "
    "random_seed reasoning reasoning_format repeat_last_n repeat_penalty repetition_penalty route safe_prompt search_mode "
    "search_parameters search_settings stop_token_ids structured_outputs tfs_z thinking think tool_stream top_a top_k top_n_sigma transforms "
    "dimensions input_type truncate truncation task task_type title top_n max_tokens_per_doc return_documents embedding_types output_dtype "
    "output_dimension encoding_format instructions response_mime style_id substyle controls negative_prompt n_images mask output_format "
    "output_compression partial_images input_fidelity width height aspect_ratio safety_tolerance prompt_upsampling raw steps guidance "
    "include conversation previous_response_id truncation max_tool_calls text store prompt_template "
    # Of search, of what works inside an answer, and of where it is asked for.
    "search_domain_filter search_recency_filter search_after_date_filter search_before_date_filter search_language_filter "
    "last_updated_after_filter last_updated_before_filter image_domain_filter image_format_filter return_images num_images "
    "return_related_questions num_search_results disable_search enable_search_classifier language_preference stream_mode safe_search "
    "exclude_domains include_domains citation_options compound_custom disable_tool_validation disable_reasoning min_completion_tokens "
    "guardrails image_config session_id do_sample reasoning_history context_length_exceeded_behavior background_options "
    "prompt_cache_options access_programs max_steps max_turns fallbacks retrieve "
    "typical typical_p speed search_options use_beam_search usage xtc_probability xtc_threshold size quality style background voice format "
    # Other wire formats' own names.
    "topK topP presencePenalty frequencyPenalty maxOutputTokens stopSequences candidateCount responseLogprobs responseMimeType responseSchema "
    "responseJsonSchema responseModalities thinkingConfig safetySettings cachedContent toolConfig serviceTier labels generationConfig "
    "stop_sequences output_config betas cache_control container context_management mcp_servers inference_geo response_schema "
    "cached_content generation_config safety_settings tool_config thinking_config thinking_budget max_output_tokens response_mime_type".split()
)

_ARGUMENTS = frozenset(
    "messages prompt stream response_format tools timeout deadline fallback_model fallback_config priority extra_body".split()
)
"""Arguments of ``query`` itself, which are misspelt just as easily."""

_NOT_YET = frozenset({"tags"})
"""Arguments of coming versions. Sent to a provider they would do nothing, in silence."""

_NEAR = 0.86
"""How alike two names must be to be one misspelt (difflib's ratio): ``temprature`` is 0.95, ``top_n`` for ``top_p`` 0.8."""

_accepted: set[str] = set(KNOWN_OPTIONS)


def check_names(options: Mapping[str, Any]) -> None:
    """Refuse a name that is nearly a known one; any other goes to the provider as it is.

    Raises:
        InvalidRequestError: A near miss, with the name that was probably meant.
    """
    if options.keys() <= _accepted:
        return
    for name in options.keys() - _accepted:
        if name in _NOT_YET:
            raise InvalidRequestError(f"{name!r} is not there yet, and no provider would know what to do with it: leave it out")
        near = difflib.get_close_matches(name.lower(), KNOWN_OPTIONS | _ARGUMENTS, 1, _NEAR)
        if near:
            raise InvalidRequestError(
                f"there is no option {name!r}: did you mean {near[0]!r}? If the provider really knows {name!r}, "
                f'give it as extra_body={{"{name}": ...}}'
            )
        _accepted.add(name)


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "stop": ((str, list, tuple), "a text or a list of texts"),
    "tools": ((list, tuple), "a list of tools"),
    "tool_choice": ((str, Mapping), "a word or a dict"),
    "modalities": ((list, tuple), "a list of words"),
    "response_format": ((Mapping,), "a dict"),
    "response_schema": ((Mapping,), "a dict"),
    "metadata": ((Mapping,), "a dict"),
    "thinking": ((Mapping,), "a dict"),
    "output_config": ((Mapping,), "a dict"),
    "generationConfig": ((Mapping,), "a dict"),
    "toolConfig": ((Mapping,), "a dict"),
}


def check_kinds(options: Mapping[str, Any]) -> None:
    """Refuse values that no translation can read.

    Raises:
        InvalidRequestError: Names the option, and what it should be.
    """
    for name, (kinds, said) in _KINDS.items():
        if name in options and not isinstance(options[name], kinds):
            raise InvalidRequestError(f"{name} is {options[name]!r}: give {said}")
    for tool in options.get("tools") or ():
        if not isinstance(tool, Mapping):
            raise InvalidRequestError(f"tools holds {tool!r}: each tool is a dict")
    if "max_tokens" in options and "max_completion_tokens" in options:
        raise InvalidRequestError("'max_tokens' and 'max_completion_tokens' are one option: give one of them")


def rename(options: dict[str, Any], renames: Mapping[str, str | None], provider: str) -> tuple[dict[str, str], list[str]]:
    """Put options under the names that this provider or model knows; return what was renamed, and what it refuses.

    Raises:
        InvalidRequestError: An option was given under both its names.
    """
    renamed = {}
    unsupported = []
    for ours, theirs in renames.items():
        if ours not in options:
            continue
        if theirs is None:
            del options[ours]
            unsupported.append(ours)
            continue
        if theirs in options:
            raise InvalidRequestError(f"{ours!r} and {theirs!r} are one option for {provider}: give one of them", provider=provider)
        options[theirs] = options.pop(ours)
        renamed[ours] = theirs
    return renamed, unsupported


def refuse(unsupported: list[str], provider: str, *, drop: bool) -> None:
    """Refuse what a provider has no word for, unless it was agreed that it is dropped.

    Raises:
        InvalidRequestError: Names the options.
    """
    if unsupported and not drop:
        names = ", ".join(map(repr, unsupported))
        raise InvalidRequestError(f'{provider} does not take {names}: leave it out, or say on_unsupported="drop"', provider=provider)
