"""Let ``python -m watchkeeper.cli`` be the command line."""

from watchkeeper.cli import main

main()
