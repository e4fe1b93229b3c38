"""The commands of the command line: what each asks for, and how it tells what was done. `cli.py` puts them together."""
