"""The register tile, of which all matrix products are made.

A tile is a small block of a matrix product ``C += A B`` whose sums stay in vector registers for the whole
reduction::

              vector 0   vector 1   vector 2   vector 3        B: one load per vector and k
    row 0  [  sum 00  |  sum 01  |  sum 02  |  sum 03  ]
    row 1  [  sum 10  |  sum 11  |  sum 12  |  sum 13  ]       A: one element per row and k, broadcast
    row 2  [  sum 20  |  sum 21  |  sum 22  |  sum 23  ]          to all elements of a register

Each k costs ``rows + vectors`` loads and ``rows * vectors`` fused multiply-adds, so a larger tile makes better use of
the multipliers, until the registers are used up. The registers hold ``rows * 4`` sums, ``rows`` broadcast elements and
one of B: 3 rows fill the 16 registers of AVX2 (12 + 3 + 1), 5 rows use 26 of the 32 of AVX-512 and NEON. Where a
vector takes several registers, a tile is computed in parts of four registers, one part after another.
(6 rows would need 31, but LLVM loads vectors of B ahead and spills sums: 68 GFLOP/s, where 5 rows reach 115 of 117.)
Without fused multiply-adds each product needs a register before it is added, so a tile has 2 rows: 3 would spill sums.
Four vectors are also the four gates of one group of LSTM units.

Every sum is one chain of multiply-adds in the order of k, for any shape of tile. So a result does not depend on how
rows and vectors are split into tiles, nor on which worker computes them. With a single row (a batch of one), four such
chains would not be enough to keep the multipliers busy, so a tile of one row has eight vectors.

B is packed (`fastlstm.kernels.pack`): vector j holds ``[k][element]`` contiguously, and the distance between vectors is
odd (`fastlstm.kernels.tile.shape.pitch`).

`shape` has the constants, `operands` the types of A, B and C, `emit` the tile's LLVM code, `call` the function that
kernels call, and `product` splits a product of any size into tiles.
"""
