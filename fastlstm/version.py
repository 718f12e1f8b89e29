"""The version of fastlstm, which files record that it wrote."""

from __future__ import annotations

__version__ = "0.1.0"
