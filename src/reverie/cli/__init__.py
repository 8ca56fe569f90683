"""The command line."""

from reverie.cli.entry import main as main
