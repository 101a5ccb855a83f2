"""Files of settings that cannot be read, and what the one error says."""

from __future__ import annotations

SETTINGS: dict[str, tuple[bytes, str]] = {
    "not TOML": (b"threshold: 0.9\n", "not a TOML file"),
    "not UTF-8": (b"finder = '\xff'\n", "not a TOML file"),
    "a byte-order mark": (b"\xef\xbb\xbfseed = 1\n", "not a TOML file"),
    "a key twice": (b"seed = 1\nseed = 2\n", "not a TOML file"),
    "an unknown table": (b"[cluster_size]\na = 1\n", "cluster_size"),
    "a number for a table": (b"clusters = 3\n", "clusters"),
    "infinity": (b"[clusters]\nthreshold = inf\n", "clusters.threshold"),
    "10^4 nested lists": (b"seed = " + b"[" * 10_000 + b"]" * 10_000, "not a TOML file"),
}
