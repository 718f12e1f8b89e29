"""The fast implementation: numba kernels over one preallocated workspace.

From the lowest layer to the highest: `host` (the processor's vector unit), `jit` (how kernels are compiled), `simd`
(vectors), `functions` (exp, tanh, sigmoid), `tile` (the register tile that all products are made of), `partition`
(ranges, split among workers), `workspace` (the layout of all buffers), `cells` (the pointwise part of each cell),
`pack`, `recurrent`, `output`, `gradients`, `update` (the phases of a step), `step` (their order), `workers` (threads)
and `network` (the contract of `fastlstm.contract.Network`).
"""
