"""What runs on a board, as `python -m edgekit.bench`: Python 3.8, the standard library, numpy and one runtime."""
