"""The reference implementation: NumPy that reads like the equations.

It is the yardstick for gradients and the opponent in benchmarks. It shares no code that computes
with `fastlstm.kernels`.
"""
