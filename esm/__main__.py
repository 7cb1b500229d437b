"""``python -m esm``: the same command as ``esm``."""

from esm.cli.main import main

if __name__ == "__main__":
    main()
