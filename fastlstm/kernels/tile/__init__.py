"""The register tile: the one product that everything else is made of.

A tile is a small block of a matrix product ``C += A B`` whose sums live in vector registers for the whole
reduction::

              vector 0   vector 1   vector 2   vector 3        B: one load a vector and k
    row 0  [  sum 00  |  sum 01  |  sum 02  |  sum 03  ]
    row 1  [  sum 10  |  sum 11  |  sum 12  |  sum 13  ]       A: one element a row and k, spread
    row 2  [  sum 20  |  sum 21  |  sum 22  |  sum 23  ]          over the elements of a register

Each k costs ``rows + vectors`` loads and ``rows * vectors`` fused multiply-adds, so a larger tile feeds the
multipliers better, until the registers are used up. With ``rows * 4`` sums, ``rows`` spread elements and
one vector of B: 3 rows fill the 16 registers of AVX2 (12 + 3 + 1), 5 rows use 26 of the 32 of AVX-512 and NEON.
(6 rows would need 31, but LLVM loads vectors of B ahead and spills sums: 68 GFLOP/s, where 5 rows reach 115 of 117.)
Without fused multiply-adds the product needs a register before it is added: 2 rows, for 3 would spill sums.
Four vectors are also the four gates of one group of LSTM units.

Every sum is one chain of multiply-adds in the order of k, whatever the tile's shape. So a result does not
depend on how rows and vectors are split into tiles, nor on which worker computes them. A single row (a batch
of one) would leave the multipliers waiting for four such chains; it takes eight vectors at a time.

B is packed (`fastlstm.kernels.pack`): vector j holds ``[k][element]`` contiguously, vectors follow each other at an odd
distance (`fastlstm.kernels.tile.shape.pitch`).

`shape` has the constants, `operands` says where A, B and C lie, `emit` has the tile's LLVM code, `call` the function
that kernels call, and `product` splits a product of any size into tiles.
"""
