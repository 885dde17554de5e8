"""Let ``python -m watchkeeper`` be the command line."""

from watchkeeper.cli import main

main()
