"""The default finder's parts: cells, the layout sorted by them, the join inside them."""
