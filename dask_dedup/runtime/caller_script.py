"""The script that has called us, which workers must not run again.

Python gives a new process the functions of the main script by running that script once more; one
without ``if __name__ == "__main__"`` would start its run again in every worker. Tasks of ours name
functions of this package only. So the process that workers are forked from gets, in two
variables of its environment, the name of the script; imported there, this module says that the
script is there already, and Python leaves it alone.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from multiprocessing.spawn import get_preparation_data

__all__ = ["CALLER", "caller_variables"]

CALLER = __name__
_VARIABLES = {
    "init_main_from_path": "DASK_DEDUP_MAIN_PATH",
    "init_main_from_name": "DASK_DEDUP_MAIN_NAME",
}


def caller_variables() -> dict[str, str]:
    """Return the variables that name this process's script; empty where there is none."""
    preparation = get_preparation_data("")
    return {
        variable: preparation[key] for key, variable in _VARIABLES.items() if key in preparation
    }


def _pretend_to_have_it() -> None:
    path, name = (os.environ.pop(variable, None) for variable in _VARIABLES.values())
    main = sys.modules["__main__"]
    if path is not None:
        main.__file__ = path
    if name is not None:
        main.__spec__ = ModuleSpec(name, None)


_pretend_to_have_it()
