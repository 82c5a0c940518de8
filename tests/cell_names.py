"""Which names the cells of a notebook read and write: told from the code, without running it."""

import ast
import builtins
import symtable
from collections.abc import Iterable, Iterator

from nbformat import NotebookNode

KNOWN = {*dir(builtins), "display", "get_ipython", "__name__"}


def _globals(table: symtable.SymbolTable) -> set[str]:
    """Return the names that the functions and classes of a table look up outside themselves."""
    inner = {s.get_name() for child in table.get_children() for s in child.get_symbols() if s.is_global()}
    return inner.union(*map(_globals, table.get_children()))


def _effect(statement: ast.stmt) -> tuple[set[str], set[str]]:
    """Return the names that a statement reads and those that it binds."""
    table = symtable.symtable(ast.unparse(statement), "cell", "exec")
    own = table.get_symbols()
    binds = {s.get_name() for s in own if s.is_assigned() or s.is_imported() or s.is_namespace()}
    reads = {s.get_name() for s in own if s.is_referenced()} | _globals(table)
    if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        reads.add(statement.target.id)
    if not isinstance(statement, ast.Assign | ast.AugAssign | ast.Expr):
        reads -= binds  # what a loop binds, it reads itself
    return reads, binds


def effect(source: str) -> tuple[set[str], set[str]]:
    """Return the names that a cell needs from elsewhere and those that it binds."""
    needed: set[str] = set()
    bound: set[str] = set()
    for statement in ast.parse(source).body:
        reads, binds = _effect(statement)
        needed |= reads - bound - KNOWN
        bound |= binds
    return needed, bound


def missing(cells: Iterable[NotebookNode]) -> Iterator[str]:
    """Yield a complaint for each name that a cell reads and none before it binds."""
    known: set[str] = set()
    for cell in cells:
        if cell.cell_type == "code":
            needed, bound = effect(cell.source)
            for name in sorted(needed - known):
                yield f"{cell.id}: {name} is not there"
            known |= bound


def looked_up(source: str) -> set[str]:
    """Return the names that the functions defined in a cell look up whenever they are called."""
    functions = [statement for statement in ast.parse(source).body if isinstance(statement, ast.FunctionDef)]
    return set().union(*(_effect(function)[0] for function in functions)) - KNOWN


def overwritten(cells: Iterable[NotebookNode]) -> Iterator[str]:
    """Yield a complaint for each name that a cell or a function of it reads, and that is bound anew later."""
    code = [cell for cell in cells if cell.cell_type == "code"]
    effects = [(cell.id, *effect(cell.source), looked_up(cell.source)) for cell in code]
    for place, (reader, needed, itself, later) in enumerate(effects):
        for name in sorted(needed & itself):
            yield f"{reader}: run twice, {name} is what it made of it"
        for writer, _, bound, _ in effects[place + 1 :]:
            for name in sorted((needed | later) & bound):
                yield f"{reader}: run twice, {name} is what {writer} made of it"
