"""Run the command line with the toy verb instead of the real ones: `python -m tests.cli.launch ARGUMENTS`."""

from pathlib import Path

TOYS = Path(__file__).parent / "toy_steps"

if __name__ == "__main__":
    import langadapt.steps

    langadapt.steps.__path__.insert(0, str(TOYS))
    from langadapt.cli.app import main

    main()
