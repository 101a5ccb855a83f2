"""Maximum spanning forests and the connected components that follow from them."""
