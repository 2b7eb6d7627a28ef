"""Run the command line: `python -m smtp_async` does what `smtp-async` does."""

from .cli import main

if __name__ == "__main__":
    main()
