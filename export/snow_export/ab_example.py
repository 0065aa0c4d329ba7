"""The example of `snow-ort ab`: `python -m snow_export.ab_example`, or `scripts/make-ab-example`.

Exports snow-tiny at two resolutions and three precisions, compares them on the demo clip, and puts the page into
`docs/ab`, a picture of it beside it, and command and output into `docs/compare.md`.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from .errors import ExportError
from .on_demand import export
from .outputs import replace_between

RESOLUTIONS = (336, 224)
PRECISIONS = ("fp32", "fp16", "int8")
BEGIN, END = "<!-- ab: written by scripts/make-ab-example -->", "<!-- /ab -->"
# The page is a part of the repository: with more frames it would be larger than all the rest of its documentation.
PAGE_FRAMES = 5


def compare(arguments: argparse.Namespace) -> tuple[list[str], str]:
    """Runs the comparison; its command without the program's folder, and what it printed."""
    command = ["ab", "demo/clip.mp4", "--prompts", "demo/prompts.json", "--gt", "demo/gt"]
    for res in RESOLUTIONS:
        for precision in PRECISIONS:
            checkpoint = Path("models/snow-tiny/checkpoint")
            bundle = export(checkpoint, "snow-tiny", res, precision, arguments.work / "models")
            command += ["--variant", f"{res}-{precision}={bundle}"]
    command += ["--page-frames", str(PAGE_FRAMES), "--out", str(arguments.work / "report")]
    done = subprocess.run(
        [str(arguments.program), *command, "--overwrite", "--fresh"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise ExportError(f"ended with exit code {done.returncode}: {shlex.join(['snow-ort', *command])}")
    return ["snow-ort", *command], done.stdout


def take_picture(page: Path, picture: Path) -> None:
    """A picture of the upper part of the page; where there is no browser, it says so and leaves an earlier one."""
    command = [sys.executable, "tests/page/webdriver.py", str(page), str(picture), "--quality", "40"]
    if subprocess.run([*command, "--width", "1080", "--height", "1330", "--scale", "0.75"], check=False).returncode:
        print(f"{picture} is as it was", file=sys.stderr)


def block(command: list[str], printed: str, page: str) -> list[str]:
    """The lines of the document; `page` is the folder of the page as its links name it."""
    # One variant a line: the whole would be too long to read.
    shown = shlex.join(command)
    for flag in (" --variant", " --page-frames"):
        shown = shown.replace(flag, " \\\n        " + flag)
    lines = [f"    $ {shown}", *(f"    {line}".rstrip() for line in printed.splitlines())]
    link = f"[![The page of the comparison: its verdict, the table, and the frames side by side]({page}/page.webp)]"
    return [*lines, "", f"{link}({page}/index.html)"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("out/ab-example"), help="bundles and the whole report")
    parser.add_argument("--program", type=Path, default=Path("target/release/snow-ort"))
    parser.add_argument("--docs", type=Path, default=Path("docs/ab"))
    parser.add_argument("--document", type=Path, default=Path("docs/compare.md"), help="gets command and output")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    command, printed = compare(arguments)
    print(printed, end="")
    arguments.docs.mkdir(parents=True, exist_ok=True)
    page = arguments.docs / "index.html"
    shutil.copyfile(arguments.work / "report/index.html", page)
    take_picture(page, arguments.docs / "page.webp")
    shown = os.path.relpath(arguments.docs, arguments.document.parent)
    replace_between(arguments.document, BEGIN, END, block(command, printed, shown))


if __name__ == "__main__":
    try:
        main()
    except ExportError as error:
        sys.exit(f"error: {error}")
