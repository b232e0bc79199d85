"""Runs the command as `python -m pbus_cli`."""

from pbus_cli.app import main

if __name__ == "__main__":
    main()
