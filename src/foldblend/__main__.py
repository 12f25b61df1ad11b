"""`foldblend COMMAND ...` and `python -m foldblend COMMAND ...`: the same commands as src/COMMAND.py."""

import difflib
import sys
from importlib import import_module
from pathlib import Path

COMMANDS = sorted(path.stem for path in (Path(__file__).parent / "commands").glob("*.py") if path.stem[0] != "_")


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit status is 0, 1 for a fault of the program, 2 for what the user can fix, 130 for Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: foldblend COMMAND ...\ncommands: {', '.join(COMMANDS)}\nfoldblend COMMAND --help explains one.")
        return 0 if argv else 2
    if argv[0] in ("--version", "-V"):
        from foldblend import __version__

        print(__version__)
        return 0
    name = argv[0].replace("-", "_")
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(COMMANDS)}"
        print(f"error: unknown command {argv[0]!r}; {hint}", file=sys.stderr)
        return 2
    from foldblend.settings.loading import guard

    command = import_module(f"foldblend.commands.{name}")
    sys.argv = [f"foldblend {name}", *argv[1:]]
    return guard(command.main)


if __name__ == "__main__":
    sys.exit(main())
