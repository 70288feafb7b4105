"""The benchmark: a scripted engine, a load generator, and the run that measures Headrace with both.

Never part of the wheel. Pure Python, because a fresh machine may have no C compiler. What each figure means and
how to read it is told in README.md. This package reads the system's clocks directly: it measures, so no simulation
ever runs it.
"""
