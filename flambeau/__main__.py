"""``python -m flambeau``: see :mod:`flambeau.cli`."""

from flambeau.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
