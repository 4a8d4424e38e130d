"""Parse, call, print: the only room that knows Typer, rich and exit codes."""
