"""Confidence limits, effective sample size, bursts: pure functions with their sources.

Import the module that you need: ``samples`` and ``dispersion`` load no scipy.
"""
