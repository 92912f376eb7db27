"""Floors of ``bench_rank``: a bare ASGI app that does nothing but score, without a store, a choice or a log.

    POST /ready/<size>     the rows are there already: only the score
    POST /rows             the rows come as JSON, as MLflow is sent them

Kinds: ``lightgbm`` (``Booster.predict``), ``compiled`` (the trees as C, by this machine's compiler), ``masks`` (our
masked trees; of ``/ready`` only). ``python -m tests.benchmarks.floors <folder> <kind> <port>``.
"""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np
import numpy.typing as npt
import uvicorn
from starlette.types import Receive, Scope, Send

from reward_models.masks import read_masks
from tests.benchmarks.rank_world import CONTEXT, SIZES

Floats = npt.NDArray[np.float64]
Score = Callable[[Floats], Floats]


class _Rows(msgspec.Struct):
    inputs: list[list[float]]


_read = msgspec.json.Decoder(_Rows).decode


def app_of(folder: Path, kind: str) -> Any:
    """The ASGI app."""
    score = _scorers(folder)[kind]
    ready = _ready(folder, kind, score)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        kind_, _, size = scope["path"][1:].partition("/")
        if kind_ == "ready":
            scores = ready[int(size)]()
        elif kind_ == "rows":
            scores = score(np.array(_read(body).inputs))
        else:
            scores = np.zeros(0)
        answer = msgspec.json.encode(scores.tolist())
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def _scorers(folder: Path) -> dict[str, Score]:
    booster = lgb.Booster(model_file=str(folder / "model.txt"))
    found: dict[str, Score] = {"lightgbm": lambda rows: np.asarray(booster.predict(rows, num_threads=1))}
    if (folder / "trees.so").exists():
        found["compiled"] = _compiled(folder / "trees.so")
    found["masks"] = found["lightgbm"]
    return found


def _ready(folder: Path, kind: str, score: Score) -> dict[int, Callable[[], Floats]]:
    matrices = {size: np.load(folder / f"rows-{size}.npy") for size in SIZES}
    if kind != "masks":
        return {size: partial(score, rows) for size, rows in matrices.items()}
    trees = read_masks((folder / "model.txt").read_text(), CONTEXT)
    assert trees is not None
    known = {size: trees.contents(rows[:, CONTEXT:]) for size, rows in matrices.items()}
    return {size: partial(trees.score, rows[0, :CONTEXT], known[size]) for size, rows in matrices.items()}


def compile_trees(folder: Path) -> bool:
    """Make ``trees.so`` of ``model.txt``: every tree as nested ifs. False where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return False
    booster = lgb.Booster(model_file=str(folder / "model.txt"))
    trees = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    functions = [
        f"static double tree{number}(const double *x) {{ {_code(tree)} }}" for number, tree in enumerate(trees)
    ]
    total = " + ".join(f"tree{number}(x)" for number in range(len(trees)))
    columns = booster.num_feature()
    loop = f"for (long row = 0; row < n; row++) {{ const double *x = rows + row * {columns}; out[row] = {total}; }}"
    source = folder / "trees.c"
    source.write_text("\n".join([*functions, f"void score(const double *rows, long n, double *out) {{ {loop} }}"]))
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(folder / "trees.so"), str(source)]
    subprocess.run(command, check=True)
    return True


def _code(node: dict[str, Any]) -> str:
    if "leaf_value" in node:
        return f"return {node['leaf_value']!r};"
    if node["decision_type"] != "<=" or node["missing_type"] != "None":
        raise ValueError("Only numbers without missing values are compiled here")
    left, right = _code(node["left_child"]), _code(node["right_child"])
    return f"if (x[{node['split_feature']}] <= {node['threshold']!r}) {{ {left} }} else {{ {right} }}"


def _compiled(library: Path) -> Score:
    function = ctypes.CDLL(str(library)).score
    pointer = ctypes.POINTER(ctypes.c_double)
    function.argtypes = (pointer, ctypes.c_long, pointer)
    function.restype = None

    def score(rows: Floats) -> Floats:
        out = np.empty(len(rows))
        function(rows.ctypes.data_as(pointer), len(rows), out.ctypes.data_as(pointer))
        return out

    return score


if __name__ == "__main__":
    uvicorn.run(
        app_of(Path(sys.argv[1]), sys.argv[2]), port=int(sys.argv[3]), log_level="warning", access_log=False, workers=1
    )
