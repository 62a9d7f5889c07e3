"""Checks: conditions about the environment that must pass, without a vote."""
