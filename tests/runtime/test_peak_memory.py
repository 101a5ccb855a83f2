import subprocess
import sys

import numpy as np

from dask_dedup.runtime.peak_memory import TreeMemory


def test_tree_memory_sees_this_process_and_its_children():
    held = 150 << 20
    with TreeMemory() as memory:
        before = memory.peak_bytes
        block = np.ones(held, np.uint8)
        subprocess.run(
            [sys.executable, "-c", f"import time; x = bytearray({held}); time.sleep(2.5)"],
            check=True,
        )
    assert block[0]
    assert memory.peak_bytes - before > 1.9 * held
