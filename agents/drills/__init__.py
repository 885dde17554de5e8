"""Drills: incidents that never happened, with known causes, asked exactly as agents ask of real ones."""

from __future__ import annotations

from watchkeeper.agents.drills.making import drills

__all__ = ["drills"]
