"""The reference implementation: NumPy that reads like the equations.

Numbers such as (L8) in comments are those of the equations in ``docs/derivation.md``, which derives them.

Gradients are checked against it, and benchmarks compare with it. It shares no computing code with
`fastlstm.kernels`.
"""
