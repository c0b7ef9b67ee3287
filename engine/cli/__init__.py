"""The `longwatch` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line (the console script `longwatch`)."""
    from engine.cli.app import main as run

    run()
