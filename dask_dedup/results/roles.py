"""What becomes of a row whatever it is similar to: uint8, in the order of the ranks."""

from __future__ import annotations

__all__ = ["NOT_DUPLICATE", "ORDINARY", "PROTECTED", "UNWANTED"]

PROTECTED = 0  #: stays in any case
ORDINARY = 1  #: stays or goes
UNWANTED = 2  #: goes in any case
NOT_DUPLICATE = 3  #: stays, and nothing is dropped for it
