"""Checks of gradients: against numerical ones, and between implementations and precisions."""
