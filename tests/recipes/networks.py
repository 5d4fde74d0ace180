"""Named by the recipes here; reading a recipe must not import it."""

raise AssertionError("a recipe was read, and its code was run")
