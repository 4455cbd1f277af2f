"""`python -m pilotage.console` is `pilotage`."""

from pilotage.console.cli.main import main

main()
