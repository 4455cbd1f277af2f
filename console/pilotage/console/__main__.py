"""`python -m pilotage.console` is `pilotage`."""

from pilotage.console.cli import main

main()
