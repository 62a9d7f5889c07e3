"""Logs → evidence blocks: one query text, the engine that runs it; the sample generator."""
