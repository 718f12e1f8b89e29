"""What a model has learned, as arrays: gradients against lag, gates, recall, cells, words, copies, recovery."""
