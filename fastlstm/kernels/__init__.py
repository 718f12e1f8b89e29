"""The fast implementation: numba kernels over one preallocated arena.

From the ground up: `host` (what the processor has), `jit` (how kernels are compiled), `simd` (vectors),
`functions` (exp, tanh, sigmoid), `tile` (the register tile all products are made of), `partition` (ranges, split among
workers), `workspace` (where every buffer lies), `cells` (the pointwise part of each cell), `pack`, `recurrent`,
`output`, `gradients`, `update` (the phases of a step), `step` (their order), `workers` (threads) and `network` (the
contract of `fastlstm.contract.Network`).
"""
