"""Run the command: `python -m tinyasgi`."""

from .cli import main

if __name__ == "__main__":
    main()
