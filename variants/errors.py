"""What this package says when a variant, a checkpoint or an input is not usable."""

from __future__ import annotations


class VariantError(Exception):
    """One clear sentence for the user: what is wrong, where, and how to mend it."""


class VariantWarning(UserWarning):
    """A third-party package that offers variants could not be used; everything else goes on."""
