"""Whether there is a `distributed.Client`, found out without importing distributed."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["current_client"]


def current_client() -> Any:
    """Return the `distributed.Client` that is current; None where there is none.

    One that is asynchronous is none: tasks are waited for.
    """
    client_type = getattr(sys.modules.get("distributed"), "Client", None)
    if client_type is None:
        return None
    try:
        client = client_type.current()
    except ValueError:
        return None
    return None if client.asynchronous or client.status == "closed" else client
