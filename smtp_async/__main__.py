"""`python -m smtp_async` is `smtp-async`."""

from .cli import main

if __name__ == "__main__":
    main()
