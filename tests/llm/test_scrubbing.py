"""No secret in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.llm.scrubbing import HIDDEN, scrubbed

SECRET = "Zq81xTnV04bLmR7y"
WAYS = [
    "Authorization: Bearer {}",
    "authorization={}",
    "{{'Authorization': 'Bearer {}', 'host': 'a'}}",
    "(b'authorization', b'Bearer {}')",
    'headers: {{"x-api-key": "{}"}}',
    "Proxy-Authorization: Basic {}",
    "x-goog-api-key: {}",
    "Cookie: a=b; session={}",
    "the token was Bearer {} and was refused",
    "https://ann:{}@example.org/v1",
    "https://{}@example.org/v1",
    "GET https://example.org/v1?model=x&api_key={}&y=1",
    "GET https://example.org/v1?key={}",
    "wss://example.org/?a=1&access_token={}#top",
    "Incorrect API key provided: {}. You can find yours at https://example.org",
    "api_key='{}'",
    '"client_secret": "{}"',
    "password={}",
    "sk-{}",
    "sk-ant-api03-{}",
    "sk-proj-abc_{}",
    "the key gsk_{} is bad",
    "hf_{}",
    "ghp_{}",
    "github_pat_{}",
    "xoxb-123-{}",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("way", WAYS)
def test_a_secret_is_hidden_wherever_it_stands(way: str) -> None:
    words = scrubbed(f"before {way.format(SECRET)}", {})

    assert SECRET not in words
    assert HIDDEN in words
    assert words.startswith("before ")


@pytest.mark.parametrize(
    "key",
    [
        "AIzaSyA1234567890abcdefghijklmn",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "sk-ab***yz",
    ],
)
def test_a_key_is_known_by_its_shape(key: str) -> None:
    assert scrubbed(f"({key})", {}) == f"({HIDDEN})"


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=6, max_size=60), st.text())
def test_what_the_environment_calls_a_key_is_hidden_whatever_it_looks_like(secret: str, text: str) -> None:
    words = scrubbed(f"{text} {secret} {text}", {"OUR_MODEL_KEY": secret, "HOME": "/home/ann"})

    assert secret not in words.replace(HIDDEN, "")


def test_a_longer_secret_is_hidden_whole() -> None:
    assert scrubbed("abcdef-ghijkl", {"A_TOKEN": "abcdef", "B_TOKEN": "abcdef-ghijkl"}) == HIDDEN


@pytest.mark.parametrize(
    "text",
    [
        "status 429: too many requests, limit 40000 tokens per min, 100 tokens: used",
        "model 'claims-assessor' (openai:gpt-5-mini): set OPENAI_API_KEY to a key that may, then resume the run",
        "max_tokens=4096, temperature=0.2, monkey=banana",
        "https://api.openai.com/v1/chat/completions?model=gpt-5-mini",
        "the provider wants authorization, see its page; a basic rule",
        "write to ann@example.org",
        "the risk-assessment of task-force-1234567",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert scrubbed(text, {"MODEL_KEY": "", "SHORT_TOKEN": "of", "HOME": "/root"}) == text


def test_a_very_long_text_is_read_to_a_bound_and_in_a_moment() -> None:
    assert len(scrubbed("key=" * 10_000_000, {})) <= 100_000


def test_the_password_of_an_address_in_the_environment_is_hidden_where_it_stands_alone() -> None:
    environment = {"LONGWATCH_MODEL_JUDGE_URL": f"https://ann:{SECRET}@models.example/v1", "OTHER": "https://a.example"}

    assert scrubbed(f"ann with {SECRET} may not come in", environment) == f"ann with {HIDDEN} may not come in"
