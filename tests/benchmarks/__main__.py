"""Lists the benchmarks, or runs the one that is named."""

import importlib
import sys
from pathlib import Path
from types import ModuleType


def names() -> list[str]:
    """Names of the benchmarks, from their files: `headlines-online` is ``bench_headlines_online.py``."""
    files = Path(__file__).parent.glob("bench_*.py")
    return sorted(path.stem.removeprefix("bench_").replace("_", "-") for path in files)


def main(arguments: list[str]) -> int:
    """Run the benchmark that is named; returns the exit code."""
    if not arguments:
        for name in names():
            print(f"  make bench NAME={name:<18} {(_module(name).__doc__ or '').strip().splitlines()[0]}")
        return 0
    if arguments[0] not in names():
        print(f"No benchmark {arguments[0]!r}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    _module(arguments[0]).main()
    return 0


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"tests.benchmarks.bench_{name.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
