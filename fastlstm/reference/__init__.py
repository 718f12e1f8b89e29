"""The reference implementation: NumPy that reads like the equations.

Gradients are checked against it, and benchmarks compare with it. It shares no computing code with
`fastlstm.kernels`.
"""
