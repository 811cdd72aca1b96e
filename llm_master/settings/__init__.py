"""Where keys and options come from. No provider is known here."""
