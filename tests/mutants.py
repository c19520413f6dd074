"""Mutation testing: small changes of the code, each of which should make a test fail.

    python -m tests.mutants [--count 60] [--seed 1] [--jobs 2] [path]

`path` limits the changes to files that contain it, such as `proxy/`. Survivors that no test can or
should notice are listed in tests/survivors.txt, with the reason; the others are printed. There,
`--> *` stands for all changes of a line.
"""

import argparse
import ast
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.copies import PACKAGE, Edit, try_all

#: Share of mutants, in percent, that tests have to kill.
TARGET = 90

TABLE = "tests/conformance/test_conformance.py"
#: Quick tests first: the state machine takes the longest.
HTTP1 = (
    *(f"tests/protocols/test_{name}.py" for name in ("exchange", "http1", "connection", "context")),
    "tests/protocols/test_machine_http1.py",
)
#: The tests for each part of the code. The first prefix of a path counts.
TESTS = {
    "http/": ("tests/http", TABLE, *HTTP1, "tests/protocols"),
    "protocols/extensions/": ("tests/protocols/extensions",),
    "protocols/http2/": ("tests/protocols/http2",),
    "protocols/websocket/": ("tests/protocols/websocket",),
    "protocols/": (*HTTP1[:-1], TABLE, "tests/server", HTTP1[-1], "tests/protocols"),
    "proxy/": ("tests/proxy",),
    "workers/policy.py": ("tests/workers/test_policy.py",),
    "workers/queues.py": ("tests/workers/test_policy.py",),
    "workers/slot.py": ("tests/workers/test_policy.py",),
}

SWAPS: dict[type[ast.AST], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "+",
    ast.And: "or",
    ast.Or: "and",
}
_OPERATOR = re.compile(rb"not\s+in|is\s+not|and|or|in|is|[<>=!]=|[-<>+*]")


class Mutant(NamedTuple):
    path: str
    line: int
    scope: str
    """Name of the class and function."""
    old: str
    new: str
    edit: Edit

    def __str__(self) -> str:
        return f"{self._place} --> {self.new}"

    @property
    def _place(self) -> str:
        return f"{self.path} {self.scope}: {self.old}"

    @property
    def texts(self) -> set[str]:
        """The texts that stand for the mutant in tests/survivors.txt."""
        return {str(self), f"{self._place} --> *"}


class Mutator(ast.NodeVisitor):
    """Collects replacements of a file: positions in bytes, and the new text."""

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._scope: list[str] = []
        self.found: list[tuple[int, int, str, str]] = []

    def _span(self, node: ast.AST) -> tuple[int, int]:
        start = self._starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        return start, end

    def _replace(self, node: ast.AST, new: str) -> None:
        self.found.append((*self._span(node), new, ".".join(self._scope)))

    def _swap(self, left: ast.AST, right: ast.AST, operator: ast.AST) -> None:
        """Replace the operator between two operands."""
        begin, end = self._span(left)[1], self._span(right)[0]
        match = _OPERATOR.search(self._source, begin, end)
        if match and type(operator) in SWAPS:
            name = ".".join(self._scope)
            self.found.append((match.start(), match.end(), SWAPS[type(operator)], name))

    # What is left alone: texts, types, declarations, and the sizes of caches.

    def visit_Assert(self, node: ast.Assert) -> None:
        pass  # for readers and mypy

    def visit_Raise(self, node: ast.Raise) -> None:
        pass  # mostly the text of an error

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_Call(self, node: ast.Call) -> None:
        if ast.unparse(node.func) == "Memo":
            self.visit(node.args[0])
        else:
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            if isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
                self._replace(node.test, f"not {ast.unparse(node.test)}")
            self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._enter(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._enter(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._enter(node)

    def _enter(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._scope.append(node.name)
        for child in node.body:
            self.visit(child)
        self._scope.pop()

    # What is changed.

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, right, operator in zip(operands, operands[1:], node.ops, strict=False):
            self._swap(left, right, operator)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self._swap(*node.values[:2], node.op)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._swap(node.left, node.right, node.op)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._replace(node, f"({ast.unparse(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._replace(node, str(not node.value))
        elif isinstance(node.value, int | float):
            self._replace(node, str(node.value + 1))

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not isinstance(node.value, ast.Constant):
            self._replace(node, "return None")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        is_call = isinstance(node.value, ast.Call | ast.Await)
        if is_call and not re.match(
            r"(self\.|context\.|self\._context\.)?_?log", ast.unparse(node)
        ):
            self._replace(node, "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        is_state = all(isinstance(target, ast.Attribute) for target in node.targets)
        if is_state and self._scope[-1:] not in ([], ["__init__"]):
            self._replace(node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._replace(node, "pass")
        self.generic_visit(node)


def mutants(path: Path) -> Iterator[Mutant]:
    """Yield all mutants of a file."""
    source = path.read_bytes()
    name = path.relative_to(PACKAGE).as_posix()
    tests = next(tests for prefix, tests in TESTS.items() if name.startswith(prefix))
    mutator = Mutator(source)
    mutator.visit(ast.parse(source))
    for start, end, new, scope in mutator.found:
        text = (source[:start] + new.encode() + source[end:]).decode()
        line = source.count(b"\n", 0, start) + 1
        begin, stop = source.rfind(b"\n", 0, start) + 1, source.find(b"\n", end)
        old, changed = source[begin:stop], source[begin:start] + new.encode() + source[end:stop]
        before, after = (" ".join(each.decode().split()) for each in (old, changed))
        yield Mutant(name, line, scope, before, after, Edit(name, text, tests))


def all_mutants(part: str) -> Iterator[Mutant]:
    """Yield the mutants of all files whose path contains `part`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if part in name and name.startswith(tuple(TESTS)):
            yield from mutants(path)


def justified() -> set[str]:
    """Return the survivors in tests/survivors.txt."""
    lines = Path(__file__).with_name("survivors.txt").read_text(encoding="utf-8").splitlines()
    return {line.strip() for line in lines if " --> " in line}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("path", nargs="?", default="")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    known = justified()
    found = [mutant for mutant in all_mutants(options.path) if not mutant.texts & known]
    chosen = random.Random(options.seed).sample(found, min(options.count, len(found)))
    chosen.sort(key=lambda mutant: (mutant.path, mutant.line))
    killed = 0
    for mutant, is_noticed in try_all([(each, each.edit) for each in chosen], options.jobs):
        killed += is_noticed
        if not is_noticed:
            print(f"survived: {mutant}    (line {mutant.line})", flush=True)
    rate = 100 * killed / len(chosen)
    print(f"{killed} of {len(chosen)} mutants were killed ({rate:.0f} %), of {len(found)} possible")
    return rate < TARGET


if __name__ == "__main__":
    sys.exit(main())
