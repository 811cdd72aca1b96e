"""Around one call: resolve, send, repeat what may pass, write the receipt."""
