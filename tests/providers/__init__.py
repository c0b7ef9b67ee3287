"""The misbehaving provider, which users of Longwatch have too: see `engine.testing.providers`."""

from engine.testing.providers import *  # noqa: F403 - all of it, under the name that the tests know
