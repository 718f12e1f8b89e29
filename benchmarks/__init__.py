"""Measurements of fastlstm, alone and compared with its peers; README.md in this folder explains how to run each."""
