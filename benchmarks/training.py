"""Training side by side with other libraries: speed, loss at equal tokens, planted features.

    python benchmarks/training.py race --activations artifacts/activations --shape F=18432 --json race.json
    python benchmarks/training.py losses --activations artifacts/activations --shape F=4608 --json losses.json
    python benchmarks/training.py planted --json planted.json
    python benchmarks/training.py report race.json losses.json planted.json --markdown docs/performance.md

The first run makes an environment with the peers' pinned versions (`--environment FOLDER`), and every run goes on
inside it.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    """Enter the peers' environment, then run the command there."""
    # Run as a file, only this folder is on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from benchmarks import environment

    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--environment", type=Path, default=environment.DEFAULT)
    known, rest = parser.parse_known_args()
    asks_for_help = bool({"-h", "--help"} & set(rest)) or not rest
    if not environment.inside(known.environment) and not asks_for_help:
        environment.enter(known.environment.absolute(), "benchmarks.training", sys.argv[1:])
    try:
        from benchmarks.command import run
    except ModuleNotFoundError:
        # Asked for help by an interpreter that has nothing installed.
        sys.exit(__doc__)
    run(rest)


if __name__ == "__main__":
    main()
