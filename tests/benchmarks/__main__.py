"""Lists the benchmarks, or runs the one that is named."""

import importlib
import sys
from pathlib import Path


def names() -> list[str]:
    """Names of the benchmarks, from their files."""
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def main(arguments: list[str]) -> int:
    """Run the benchmark that is named; returns the exit code."""
    if not arguments:
        for name in names():
            module = importlib.import_module(f"tests.benchmarks.bench_{name}")
            print(f"  make bench NAME={name:<12} {(module.__doc__ or '').strip().splitlines()[0]}")
        return 0
    if arguments[0] not in names():
        print(f"No benchmark {arguments[0]!r}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    importlib.import_module(f"tests.benchmarks.bench_{arguments[0]}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
