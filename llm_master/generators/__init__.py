"""Generators: functions that a row's ``generate_map`` points to, for models that are asked in another way than by a chat.

::

    async def generator(provider, messages, model, **options) -> LLMResponse: ...

``provider`` is bound to the leased key, and ``provider.client`` is the row's SDK client. ``messages`` is the conversation
(``prompt=`` comes as one user message), ``model`` the wire id, ``options`` what the call gave beside. An exception of the
``openai`` SDK becomes the library's own error, so that it is retried and shown as any other.

These are written as anybody would write theirs, against public names only.
"""

from __future__ import annotations
