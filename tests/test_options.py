"""Names of options: misspelt, vendors' own, renamed, refused, left out."""

from __future__ import annotations

import pytest

from llm_master import (
    PROVIDER_CONFIGS,
    BaseLLMProvider,
    InvalidRequestError,
    LLMConfig,
    ModelConfig,
    ModelRegistry,
    ProviderConfig,
    QueryLLM,
)
from llm_master.dispatch.options import KNOWN_OPTIONS, check_names, refuse, rename


class Recorder(BaseLLMProvider):
    """Says nothing, and writes down what it was asked."""

    asked: list = []

    async def generate(self, messages, model, **options):
        Recorder.asked.append((model, options))
        return "done"


@pytest.fixture(autouse=True)
def acme():
    Recorder.asked = []
    PROVIDER_CONFIGS["acme"] = ProviderConfig(
        provider_class=Recorder,
        requires_key=False,
        models={
            "plain": {},
            "careful": {"id": "acme-large", "options": {"temperature": 0, "top_k": 5}},
        },
    )


async def sent(model_name="acme/plain", **arguments):
    await QueryLLM().query(model_name, prompt="Hello", **arguments)
    return Recorder.asked[-1][1]


# Misspelt


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("temprature", "temperature"),
        ("temperatur", "temperature"),
        ("max_token", "max_tokens"),
        ("maxtokens", "max_tokens"),
        ("stops", "stop"),
        ("tool_choise", "tool_choice"),
        ("tool", "tools"),
        ("reasoning_efort", "reasoning_effort"),
        ("response_fromat", "response_format"),
        ("presense_penalty", "presence_penalty"),
        ("max_completions_tokens", "max_completion_tokens"),
        ("stream_option", "stream_options"),
        ("Temperature", "temperature"),
    ],
)
async def test_a_near_miss_is_refused_with_what_was_meant(written, meant):
    with pytest.raises(InvalidRequestError, match=rf"'{written}'.*did you mean '{meant}'.*extra_body"):
        await sent(**{written: 1})
    assert Recorder.asked == []


@pytest.mark.parametrize("written", ["deadlin", "dead_line", "time_out", "timeouts", "extrabody", "message", "promt"])
async def test_a_near_miss_of_an_argument_of_query_is_no_option_either(written):
    with pytest.raises(InvalidRequestError, match=f"{written}.*did you mean"):
        await sent(**{written: 1})
    assert Recorder.asked == []


# Words that vendors really use and that this list of ours may not know
VENDORS_OWN = """
top_n top_k top_a min_p top_h typical typical_p tfs tfs_z n_predict num_predict n_keep n_discard n_probs n_ctx num_ctx num_gpu num_thread num_keep
num_batch min_tokens max_new_tokens min_new_tokens max_length min_length max_output_tokens max_time max_steps max_tool_calls do_sample
no_repeat_ngram_size repetition_penalty repeat_penalty repeat_last_n penalize_nl penalty_alpha early_stopping num_beams beam_width
length_penalty diversity_penalty encoder_repetition_penalty skip_special_tokens spaces_between_special_tokens include_stop_str_in_output
prompt_logprobs truncate_prompt_tokens add_generation_prompt continue_final_message add_special_tokens echo guided_json guided_regex
guided_choice guided_grammar guided_decoding_backend guided_whitespace_pattern structured_outputs request_id mm_processor_kwargs
stop_token_ids bad_words allowed_token_ids ignore_eos detokenize return_token_ids cache_salt logits_processors lora regex ebnf
separate_reasoning stream_reasoning custom_logit_processor session_params
thinking thinking_budget enable_thinking enable_search search_options incremental_output vl_high_resolution_images result_format
safe_prompt random_seed prompt_mode document_image_limit document_page_limit citations_per_search
search_domain_filter search_recency_filter return_images return_related_questions search_after_date_filter search_mode disable_search
citation_quality documents connectors force_single_step raw_prompting p k stop_sequences prompt_truncation safety_mode citation_options
transforms models route provider plugins usage include_reasoning reasoning verbosity session_id trace
context_length_exceeded_behavior prompt_truncate_len prompt_cache_max_len mirostat_lr mirostat_target mirostat_tau speculation
rewrite_speculation perf_metrics_in_response reasoning_history logit_bias user safety_identifier prompt_cache_key store metadata
deferred search_parameters web_search_options parallel_function_calling disable_reasoning clear_thinking
tool_stream request_timeout do_meta user_id partial cached_content google extra safety_settings generation_config thinking_config
cache_control service_tier inference_geo speed betas container context_management mcp_servers
keep_alive raw template suffix images format options think cache_prompt id_slot samplers grammar_lazy
dry_multiplier dry_base dry_allowed_length xtc_probability dynatemp_range dynatemp_exponent mirostat t_max_predict_ms timings_per_token
post_sampling_probs response_fields ttl draft_model context_overflow_policy ignore_eos reasoning_format reasoning_in_content
quality background size style voice n
""".split()


def test_a_vendors_own_word_is_not_taken_for_a_misspelling():
    refused = {}
    for name in VENDORS_OWN:
        try:
            check_names({name: 1})
        except InvalidRequestError as error:
            refused[name] = str(error)
    assert refused == {}


def test_a_word_that_is_known_to_us_is_never_refused():
    check_names(dict.fromkeys(KNOWN_OPTIONS, 1))
    assert {"temperature", "max_tokens", "tools", "seed"} <= KNOWN_OPTIONS


async def test_an_unknown_word_goes_out_verbatim():
    assert await sent(flux_capacitor={"on": True}) == {"flux_capacitor": {"on": True}}


async def test_a_misspelling_stays_one_however_often_it_comes():
    for _ in range(2):
        with pytest.raises(InvalidRequestError):
            await sent(temprature=1)


# Left out, and given


async def test_none_means_not_given():
    assert await sent(temperature=None, seed=None, top_p=0.5, tools=None, response_format=None) == {"top_p": 0.5}


async def test_what_is_false_or_nought_is_given():
    assert await sent(temperature=0, store=False, stop="") == {"temperature": 0, "store": False, "stop": ""}


async def test_extra_body_goes_out_verbatim():
    body = {"temprature": 1, "nothing": None, "nested": {"a": [1]}}
    assert await sent(temperature=0.5, extra_body=body) == {"temperature": 0.5, **body}


async def test_extra_body_wins_over_an_option():
    assert await sent(temperature=0.5, extra_body={"temperature": 1}) == {"temperature": 1}


@pytest.mark.parametrize("body", ["temperature=1", 7, [("temperature", 1)]])
async def test_extra_body_is_a_dict(body):
    with pytest.raises(InvalidRequestError, match="extra_body is a .*give a dict"):
        await sent(extra_body=body)


async def test_a_callers_own_dicts_stay_as_they_were():
    body, options = {"a": 1}, {"temperature": 0.5}
    await sent(extra_body=body, **options)
    assert (body, options) == ({"a": 1}, {"temperature": 0.5})


# Declared by the row


async def test_a_declared_models_options_hold_also_where_its_id_differs():
    await sent("careful")
    assert Recorder.asked == [("acme-large", {"temperature": 0, "top_k": 5})]


async def test_the_calls_options_win_over_the_declared():
    assert await sent("acme/careful", temperature=1) == {"temperature": 1, "top_k": 5}


async def test_an_option_that_was_left_out_does_not_win_over_the_declared():
    assert await sent("careful", temperature=None) == {"temperature": 0, "top_k": 5}


async def test_one_calls_options_do_not_stay_for_the_next():
    await sent("careful", seed=7)
    assert await sent("careful") == {"temperature": 0, "top_k": 5}


# Renamed


@pytest.fixture
def renaming():
    PROVIDER_CONFIGS["acme"] = ProviderConfig(
        provider_class=Recorder,
        requires_key=False,
        renames={"seed": "random_seed", "stream_options": None},
        models={"seeded": {"options": {"seed": 3}}},
    )


async def test_an_option_goes_out_under_the_providers_name_and_the_receipt_says_so(renaming):
    answer = await QueryLLM().query("acme/large", prompt="Hello", seed=7, temperature=0)
    assert Recorder.asked == [("large", {"random_seed": 7, "temperature": 0})]
    assert answer.receipt.renamed == {"seed": "random_seed"}
    assert answer.receipt.options == {"random_seed": 7, "temperature": 0}


async def test_a_declared_option_is_renamed_too(renaming):
    assert await sent("seeded") == {"random_seed": 3}


async def test_an_option_that_the_api_refuses_is_refused_by_name_and_not_dropped(renaming):
    with pytest.raises(InvalidRequestError, match="acme does not take 'stream_options'.*leave it out"):
        await sent("acme/large", stream_options={"include_usage": True})
    assert Recorder.asked == []


async def test_both_names_of_one_option_are_refused(renaming):
    with pytest.raises(InvalidRequestError, match="'seed' and 'random_seed' are one option"):
        await sent("acme/large", seed=1, random_seed=2)


async def test_the_providers_own_name_may_be_given(renaming):
    assert await sent("acme/large", random_seed=2) == {"random_seed": 2}


async def test_extra_body_is_not_renamed(renaming):
    assert await sent("acme/large", extra_body={"seed": 1}) == {"seed": 1}


async def test_a_models_renames_join_its_providers(renaming):
    ModelRegistry.register("acme/thinker", ModelConfig(renames={"max_tokens": "max_completion_tokens"}))
    assert await sent("acme/thinker", seed=1, max_tokens=5) == {"random_seed": 1, "max_completion_tokens": 5}
    assert await sent("acme/other", seed=1, max_tokens=5) == {"random_seed": 1, "max_tokens": 5}


def test_mistrals_seed_has_its_own_name():
    options = {"seed": 7, "temperature": 0}
    assert rename(options, PROVIDER_CONFIGS["mistral"].renames, "mistral") == ({"seed": "random_seed"}, [])
    assert options == {"random_seed": 7, "temperature": 0}


def test_mistral_takes_no_stream_options():
    options = {"stream_options": {}}
    _, unsupported = rename(options, PROVIDER_CONFIGS["mistral"].renames, "mistral")
    assert (unsupported, options) == (["stream_options"], {})
    with pytest.raises(InvalidRequestError, match="mistral.*stream_options.*on_unsupported"):
        refuse(unsupported, "mistral", drop=False)
    refuse(unsupported, "mistral", drop=True)


async def test_a_reasoning_model_gets_its_own_name_for_max_tokens():
    PROVIDER_CONFIGS["openai"] = ProviderConfig(provider_class=Recorder, requires_key=False, prefixes=("gpt-",))
    assert await sent("gpt-6-luna", max_tokens=5) == {"max_completion_tokens": 5}
    assert await sent("gpt-4.1", max_tokens=5) == {"max_tokens": 5}


async def test_options_do_not_depend_on_the_order_of_objects():
    config = LLMConfig(environment={})
    first = await QueryLLM(config).query("acme/plain", prompt="Hello", temperature=0)
    second = await QueryLLM(config).query("acme/plain", prompt="Hello")
    assert (first.receipt.options, second.receipt.options) == ({"temperature": 0}, {})
