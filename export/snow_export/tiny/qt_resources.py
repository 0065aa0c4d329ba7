"""Reads files out of Qt's resource archives (`.rcc`), in which a game ships its pictures."""

import struct
import zlib

_FOLDER, _ZLIB, _ZSTD = 2, 1, 4


def read_resource(archive: bytes, path: str) -> bytes:
    """The file of a path inside an archive; `KeyError` if it has none, `ValueError` if it cannot be read."""
    if archive[:4] != b"qres":
        raise ValueError("no Qt resource archive: it does not begin with 'qres'")
    version, tree, data, names = struct.unpack(">IIII", archive[4:20])
    size = 22 if version >= 2 else 14

    def entry(index: int) -> tuple[str, int, bytes]:
        node = archive[tree + index * size : tree + (index + 1) * size]
        offset, flags = struct.unpack(">IH", node[:6])
        length = struct.unpack(">H", archive[names + offset : names + offset + 2])[0]
        start = names + offset + 6
        return archive[start : start + 2 * length].decode("utf-16-be"), flags, node

    index = 0
    for part in path.split("/"):
        count, first = struct.unpack(">II", entry(index)[2][6:14])
        index = next((child for child in range(first, first + count) if entry(child)[0] == part), -1)
        if index < 0:
            raise KeyError(f"{path}: there is no {part!r} in the archive")
    _, flags, node = entry(index)
    if flags & _FOLDER:
        raise KeyError(f"{path}: is a folder of the archive")
    offset = data + struct.unpack(">I", node[10:14])[0]
    length = struct.unpack(">I", archive[offset : offset + 4])[0]
    content = archive[offset + 4 : offset + 4 + length]
    if flags & _ZSTD:
        raise ValueError(f"{path}: is compressed with Zstandard, which is not read here")
    return zlib.decompress(content[4:]) if flags & _ZLIB else content
