"""`python -m tests.providers`: see `engine.testing.providers.__main__`."""

from engine.testing.providers.__main__ import main

if __name__ == "__main__":
    main()
