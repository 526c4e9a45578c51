"""New ids, in the form of OpenAI's: a prefix that says what it names, and enough randomness that nobody guesses it."""

import secrets


def new_id(prefix: str) -> str:
    """A new id, such as `resp_…`."""
    return f"{prefix}_{secrets.token_hex(24)}"
