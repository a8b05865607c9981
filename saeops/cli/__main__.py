"""`python -m saeops.cli`: the verbs where `saeops` is not on the PATH."""

from saeops.cli import main

main()
