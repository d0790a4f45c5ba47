"""Shapes are checked under pytest only: jaxtyping reads the annotations, beartype enforces them."""

from jaxtyping import install_import_hook

install_import_hook(["core", "trainer"], "beartype.beartype")
