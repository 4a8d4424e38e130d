"""`python -m langadapt`: the same as the command `langadapt`."""

from langadapt.cli.app import main

if __name__ == "__main__":
    main()
