"""From GitHub history to validated, sealed software-engineering tasks and graded agent trajectories."""

__version__ = "0.1.0"
