"""`python -m engine.cli` is `longwatch`."""

from engine.cli import main

main()
