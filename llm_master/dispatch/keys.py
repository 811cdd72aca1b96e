"""API keys, and how they are spoken of."""

from __future__ import annotations

import attrs

from llm_master.errors import ConfigurationError

_LONG = 8
"""Characters from which the last four may be shown."""


@attrs.frozen
class Key:
    """One API key.

    Attributes:
        secret: The key itself. It is shown nowhere.
        source: Where it came from: a variable, or what else was given.
    """

    secret: str = attrs.field(repr=False)
    source: str

    @property
    def name(self) -> str:
        """How the key is called in receipts, logs and errors: its source and its last four characters."""
        # Of a short key, four characters would be too much of it.
        return f"{self.source} …{self.secret[-4:]}" if len(self.secret) >= _LONG else self.source

    @classmethod
    def checked(cls, secret: str, source: str) -> Key:
        """Make a key of what stands in ``source``, a variable or an argument.

        Raises:
            ConfigurationError: It holds a character that no HTTP header may hold.
        """
        secret = secret.strip()
        for position, character in enumerate(secret):
            if not character.isascii() or not character.isprintable() or character == " ":
                kind = "a space" if character == " " else "a line break" if character in "\r\n" else "no printable ASCII character"
                raise ConfigurationError(f"the key in {source} has {kind} at position {position + 1}: paste it again")
        return cls(secret, source)
