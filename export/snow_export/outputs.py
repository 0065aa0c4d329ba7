"""Files that appear whole or not at all."""

from pathlib import Path

from .errors import ExportError


def replace_text(path: Path, text: str) -> None:
    """Writes a text beside its final name and renames it."""
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.rename(path)


def replace_between(path: Path, begin: str, end: str, lines: list[str]) -> None:
    """Puts lines between two marks of a text file, each of which stands there once."""
    text = path.read_text()
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ExportError(f"{path}: expected the lines `{begin}` and `{end}` once each; put them where the lines go")
    before, rest = text.split(begin)
    _, after = rest.split(end)
    replace_text(path, before + begin + "\n" + "\n".join(lines) + "\n" + end + after)
