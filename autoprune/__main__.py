"""`python -m autoprune`."""

from autoprune.cli import main

if __name__ == "__main__":
    main()
