"""Words without secrets: what a provider, a proxy or a client says of a failure may repeat the key that it was sent."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

HIDDEN: Final = "***"
LONGEST_READ: Final = 65_536
"""Characters that are looked at; the rest is dropped."""
LEAST_SECRET: Final = 6
"""Shorter values of the environment hide nothing: they would blank out ordinary words."""

_ALSO: Final[set[str]] = set()
_NAME: Final = r"(?:api[ _-]?key|access[_-]?key|secret|passw(?:or)?d|passphrase|credentials?|\b(?:\w+[_-])?token)"
_SECRET_VARIABLE: Final = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_PASSWORD: Final = re.compile(r"\w://[^\s/?#@:]*:([^\s/?#@]+)@")
_HEADER: Final = r"(?:(?:proxy-)?authorization|(?:x-)?(?:goog-)?api-?key|x-auth-token)"
_IS: Final = r"(?:['\"]?\s*[:=]\s*|['\"]\s*,\s*)(?:b?['\"])?"
"""Between a header's name and its value, in a message, an object or a list of pairs."""
_SCHEME: Final = r"(?:(?:bearer|basic|token|digest)\s+)?"
_KEY_SHAPES: Final = (
    r"\b(?:sk|pk|rk|sess)-[\w*.\-]{6,}",  # OpenAI, Anthropic (sk-ant-), and many others; masked by stars too
    r"\b(?:gsk|hf|r8|ghp|gho|ghs|ghu|glpat|npm|tvly|pplx|xai|fw|nvapi|csk)[_-][\w\-]{8,}",
    r"\bgithub_pat_\w{8,}",
    r"\bxox[a-z]-[\w\-]{8,}",
    r"\bAIza[\w\-]{20,}",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}",
    r"\beyJ[\w\-]{8,}\.[\w\-]{4,}(?:\.[\w\-]*)?",  # a JSON web token
)
_RULES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), put)
    for pattern, put in (
        (r"-----BEGIN [^-]{0,40}PRIVATE KEY-----[\s\S]*?(?:-----END [^-]{0,40}-----|\Z)", HIDDEN),
        (r"(\w://)[^\s/?#@'\"<>]+@", rf"\g<1>{HIDDEN}@"),
        (r"(\b(?:set-)?cookie['\"]?\s*[:=,]\s*(?:b?['\"])?)[^\r\n'\"]+", rf"\g<1>{HIDDEN}"),
        (rf"\b({_HEADER}{_IS}){_SCHEME}[^\s'\",;&}}\]]+", rf"\g<1>{HIDDEN}"),
        (r"(\bkey provided:?\s*)[^\s]+", rf"\g<1>{HIDDEN}"),
        (r"\b(bearer|basic)\s+[\w.~+/=\-*]{6,}", rf"\g<1> {HIDDEN}"),
        (
            r"([?&;][\w.\-]*(?:key|token|secret|passw(?:or)?d|sig|signature|auth|credential)[\w.\-]*=)[^&\s'\"#<>]+",
            rf"\g<1>{HIDDEN}",
        ),
        (rf"({_NAME}['\"]?\s*[:=]\s*['\"]?)[^\s'\",;&}}\]]{{3,}}", rf"\g<1>{HIDDEN}"),
        *((shape, HIDDEN) for shape in _KEY_SHAPES),
    )
)


def scrubbed(text: str, environment: Mapping[str, str] | None = None) -> str:
    """The text with all that is, or looks like, a secret put out of sight.

    Hidden are: values of the environment's variables whose names end in KEY, TOKEN, SECRET, PASSWORD or CREDENTIALS,
    and the passwords in its addresses; headers that carry a key; tokens behind `Bearer`; user and password in an
    address, and parameters of its query that are named for a secret; `api_key=...` and its like; and what has the shape
    of a well-known provider's key. `environment` is this process's unless it is given.
    """
    text = text[:LONGEST_READ]
    for secret in _known(os.environ if environment is None else environment):
        text = text.replace(secret, HIDDEN)
    for pattern, put in _RULES:
        text = pattern.sub(put, text)
    return text


def hide(secret: str) -> None:
    """Hide this too from now on: a key that stands under a name that says nothing."""
    _ALSO.add(secret)


def _known(environment: Mapping[str, str]) -> list[str]:
    """The longest first, so that one that holds another is hidden whole."""
    found = {value for name, value in environment.items() if _SECRET_VARIABLE.search(name)}
    found |= _ALSO
    found |= {user[1] for value in environment.values() for user in _PASSWORD.finditer(value)}
    return sorted((value for value in found if len(value) >= LEAST_SECRET), key=len, reverse=True)
