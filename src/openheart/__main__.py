"""`python -m openheart` is `openheart`."""

from openheart.cli import main

if __name__ == "__main__":
    main()
