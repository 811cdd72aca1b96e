"""Speech by OpenAI's API, and by the APIs that took its shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_master.errors import InvalidRequestError, ServerError
from llm_master.media import Audio
from llm_master.providers.base import BaseLLMProvider, extract_prompt
from llm_master.providers.sdk import call
from llm_master.types import LLMResponse, Message, Usage, WireAnswer

DEFAULT_VOICE = "alloy"
"""Every model of OpenAI's has it."""

MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
"""By the format that was asked for. ``pcm`` is bare samples: 24,000 a second, 16 bit, little-endian, one channel."""


async def speech(provider: BaseLLMProvider, messages: Sequence[Message], model: str, **options: Any) -> LLMResponse:
    """Speak the last user message.

    Source: https://platform.openai.com/docs/api-reference/audio/createSpeech

    Args:
        provider: Its ``client`` has ``audio.speech.create``.
        messages: The conversation.
        model: The wire id.
        **options: ``voice`` (``alloy``), ``format`` or ``response_format`` (``mp3``; or opus, aac, flac, wav, pcm), ``speed``
            (0.25 to 4), ``instructions`` (how to say it), ...

    Returns:
        ``audio`` with its transcript, and no ``content``. ``usage.characters`` is the length of the text.

    Raises:
        InvalidRequestError: No text, or a format under both its names.
        ServerError: An answer without audio.
    """
    text = extract_prompt(messages)
    if not text.strip():
        raise InvalidRequestError("the last user message has no text: say what is to be spoken")
    if "format" in options and "response_format" in options:
        raise InvalidRequestError("'format' and 'response_format' are one option: give one of them")
    format = options.pop("format", None) or options.pop("response_format", None) or "mp3"
    arguments = {"model": model, "input": text, "voice": DEFAULT_VOICE, "response_format": format, **options}
    answer = await call(provider.client, "audio.speech.create", **arguments)
    data = answer if isinstance(answer, bytes) else answer.content
    if not data:
        raise ServerError("answered without audio", model=model)
    audio = Audio(data, MEDIA_TYPES.get(str(format), f"audio/{format}"), transcript=text)
    return LLMResponse("", model, Usage(characters=len(text)), audio=audio, finish_reason="stop", wire=WireAnswer(200))
