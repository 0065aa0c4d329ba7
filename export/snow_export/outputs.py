"""Files that appear whole or not at all."""

from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Writes a text beside its final name and renames it."""
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.rename(path)
