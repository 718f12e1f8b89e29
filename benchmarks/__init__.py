"""Measurements of fastlstm, alone and beside its peers; README.md in this folder says how to run each."""
