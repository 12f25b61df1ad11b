"""How much a reader has to open: sizes, imports and comments of one or two checkouts, as one table.

    python bench/house.py /path/to/old .

Counted is src/ of each checkout. A module's importers are the files that import it anywhere in them; what an
__init__.py passes on counts for the module it is from, and neither it nor an entry point of a few lines is an importer.
Files behind a command are also those named in a table, as "learners.tfidf:TfidfLearner" is. The training loop and the
blend are the files of LOOPS and BLENDS, whatever of them a checkout has. Lengths of functions are from `def` to the
last line, docstring included. A line with `# noqa` or another word for a tool is not commented.
"""

import argparse
import ast
import io
import re
import statistics
import tokenize
from collections import Counter
from functools import cached_property
from pathlib import Path

LOOPS = ("learners/fold_training.py", "learners/training/loop.py")
BLENDS = ("scoring/blending.py", "scoring/ensembling/blending.py", "scoring/blend.py")
SHORT_MODULE = 60
NAMED = re.compile(r"[\w.]+:\w+")
FOR_TOOLS = re.compile(r"#\s*(noqa|fmt|type|ruff|mypy|pragma)\b|#!")
NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class House:
    """The Python files of one checkout's src/ and who imports whom."""

    def __init__(self, checkout: Path):
        self.src, self.readme = checkout / "src", checkout / "README.md"
        paths = [path for path in sorted(self.src.rglob("*.py")) if "__pycache__" not in path.parts]
        self.text = {str(path.relative_to(self.src)): path.read_text(encoding="utf-8") for path in paths}
        self.tree = {name: ast.parse(text) for name, text in self.text.items()}
        self.lines = {name: len(text.splitlines()) for name, text in self.text.items()}
        self.file_of = {module_name(name): name for name in self.text}

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """File -> the files of this house that it imports; an __init__.py is seen through."""
        return {name: {other for other in self._imported(name) if other != name} for name in self.text}

    @cached_property
    def named(self) -> dict[str, set[str]]:
        """File -> the files that strings such as "package.module:Name" in it are about."""
        return {name: {other for other in self._named(name) if other != name} for name in self.text}

    def _imported(self, name: str):
        for node in ast.walk(self.tree[name]):
            if isinstance(node, ast.Import):
                yield from (self.file_of[alias.name] for alias in node.names if alias.name in self.file_of)
            elif isinstance(node, ast.ImportFrom):
                base = absolute_name(name, node)
                for alias in node.names:
                    yield from self._resolve(base, alias.name)

    def _named(self, name: str):
        for node in ast.walk(self.tree[name]):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
                module, _, attribute = node.value.partition(":")
                yield from self._resolve(module, attribute)

    def _resolve(self, module: str, attribute: str):
        """The file that `from module import attribute` is about; nothing for a library's."""
        if f"{module}.{attribute}" in self.file_of:
            yield self.file_of[f"{module}.{attribute}"]
        elif module in self.file_of:
            name = self.file_of[module]
            passed_on = []
            if name.endswith("__init__.py"):
                froms = [node for node in ast.walk(self.tree[name]) if isinstance(node, ast.ImportFrom)]
                passed_on = [absolute_name(name, node) for node in froms for a in node.names
                             if (a.asname or a.name) == attribute]  # fmt: skip
            for origin in passed_on or [None]:
                yield from [name] if origin is None else self._resolve(origin, attribute)

    def importers(self) -> Counter:
        """How many files import each module, without entry points and files that pass names on."""
        is_package = any(name.startswith("foldblend/") for name in self.text)
        counted = [name for name in self.text if not name.endswith("__init__.py") and ("/" in name or not is_package)]
        return Counter(other for name in counted for other in self.imports[name])

    def reached(self, start: str) -> set[str]:
        """Every file behind this one, however far."""
        found, open_files = set(), [start]
        while open_files:
            here = open_files.pop()
            for name in (self.imports.get(here, set()) | self.named.get(here, set())) - found:
                found.add(name)
                open_files.append(name)
        return found - {start}

    def find(self, endings: tuple[str, ...]) -> list[str]:
        return [name for name in self.text if name.endswith(endings)]


def module_name(name: str) -> str:
    """`a/b.py` -> `a.b`, `a/__init__.py` -> `a`."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def absolute_name(name: str, node: ast.ImportFrom) -> str:
    """The module an import is from, with the dots of a relative one resolved."""
    if not node.level:
        return node.module or ""
    parts = name.removesuffix(".py").split("/")[: -node.level]
    return ".".join([*parts, *([node.module] if node.module else [])])


def count_lines(text: str, tree: ast.Module) -> tuple[int, int, int]:
    """Lines of code, with a comment, and of docstrings, those under fields included."""
    docs = [node for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    documented = {line for node in docs if isinstance(node.value.value, str)
                  for line in range(node.lineno, node.end_lineno + 1)}  # fmt: skip
    code, commented = set(), set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not FOR_TOOLS.match(token.string):
            commented.add(token.start[0])
        elif token.type not in NOT_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - documented), len(commented), len(documented)


def measure(house: House) -> dict[str, str]:
    """What is measured -> its figure, in the order of the table."""
    return {**measure_files(house), **measure_functions(house), **measure_comments(house), **measure_reading(house)}


def measure_files(house: House) -> dict[str, str]:
    largest = max(house.lines, key=house.lines.get)
    folders = Counter(str(Path("src", name).parent) for name in house.text)
    folder, most = folders.most_common(1)[0]
    once = [name for name, count in house.importers().items() if count == 1 and not name.endswith("__init__.py")]
    short = [name for name in once if house.lines[name] < SHORT_MODULE]
    return {
        ".py files in src/": f"{len(house.text)}",
        "lines in all": f"{sum(house.lines.values()):,}",
        "lines of a file, median": f"{statistics.median(house.lines.values()):.0f}",
        "lines of the largest file": f"{house.lines[largest]} {largest}",
        "files in the fullest folder": f"{most} {folder}",
        "folders of over 15 files": f"{sum(count > 15 for count in folders.values())}",
        "modules with one importer": f"{len(once)}",
        f"of these under {SHORT_MODULE} lines": f"{len(short)}",
    }


def measure_functions(house: House) -> dict[str, str]:
    found = [(node.end_lineno - node.lineno + 1, f"{node.name} in {name}") for name, tree in house.tree.items()
             for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]  # fmt: skip
    lengths = sorted(length for length, _ in found)
    return {
        "functions": f"{len(found):,}",
        "lines of a function, median": f"{statistics.median(lengths):.0f}",
        "90 % have at most": f"{lengths[int(0.9 * (len(lengths) - 1))]}",
        "lines of the longest": "{} {}".format(*max(found)),
        "functions over 80 lines": f"{sum(length > 80 for length in lengths)}",
    }


def measure_comments(house: House) -> dict[str, str]:
    code, comments, docs = map(sum, zip(*(count_lines(house.text[name], house.tree[name]) for name in house.text)))
    return {
        "lines of code": f"{code:,}",
        "comment lines per line of code": f"{comments / code:.3f}",
        "docstring lines per line of code": f"{docs / code:.3f}",
    }


def measure_reading(house: House) -> dict[str, str]:
    rows = {}
    for what, endings, command in (("training", LOOPS, "train.py"), ("blend", BLENDS, "blend.py")):
        files = house.find(endings)
        direct = set().union(*(house.imports[name] for name in files)) - set(files)
        rows[f"files of the {what} itself"] = ", ".join(files) or "not found"
        rows[f"files that it imports, direct ({what})"] = f"{len(direct)}"
        commands = house.find((f"commands/{command}",)) or [command]
        rows[f"files that the command imports ({what})"] = f"{len(house.imports[commands[0]])}"
        # from the command itself: an entry point finds it by its name, which no import shows
        rows[f"files behind src/{command}, all"] = f"{len(house.reached(commands[0]))}"
    return {**rows, "words in README.md": f"{len(house.readme.read_text(encoding='utf-8').split()):,}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", type=Path, help="one or two: before and after")
    checkouts = parser.parse_args().checkouts
    columns = [measure(House(checkout)) for checkout in checkouts]
    print(f"| | {' | '.join(('before', 'after')[: len(columns)])} |\n|---|{'---|' * len(columns)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(column[name] for column in columns)} |")


if __name__ == "__main__":
    main()
