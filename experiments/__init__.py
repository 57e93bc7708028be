"""Launches: flags -> dataclasses -> library calls."""
