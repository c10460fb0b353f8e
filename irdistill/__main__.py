"""The command line as ``python -m irdistill``, which is how torchrun starts it."""

from irdistill.cli import main

if __name__ == "__main__":
    main()
