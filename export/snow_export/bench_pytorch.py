"""Times bundles against the unpatched reference: `python -m snow_export.bench_pytorch`, or `scripts/bench-pytorch`.

Exports what is missing, has `snow-ort bench` measure bundles and PyTorch in turn on the same frames, prompts and
threads, and puts the tables into `benches/RESULTS.md` under a heading of their own, in place of earlier ones of that
heading.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from .bench_reference import DTYPES
from .errors import ExportError
from .on_demand import export, random_checkpoint, run
from .outputs import replace_text
from .precision import PRECISIONS

INTRODUCTION = """# Measurements

Each section was written by the command in it. snow-ort and the unpatched PyTorch reference (`transformers`, not
compiled) alternate in separate processes, on the same frames, prompts and threads. Times are medians with
quartiles, from the resized image to the low-resolution masks and memories of all objects. A ratio is snow-ort's time
divided by the reference's: the median of the rounds' ratios with its 95% interval; below 1 is faster. "resident" is the
peak of the whole process, "arena" the peak of what graphs take, "first mask" the time from the start of the process to
the first masks.
"""


def replace_section(text: str, heading: str, body: str) -> str:
    """A Markdown text with what stands under a heading of the second level replaced, or added at the end."""
    sections = text.rstrip("\n").split("\n## ")
    kept = [section for section in sections[1:] if section.split("\n", 1)[0] != heading]
    place = next((i for i, section in enumerate(sections[1:]) if section.split("\n", 1)[0] == heading), len(kept))
    body = body.strip("\n")
    kept.insert(place, f"{heading}\n\n{body}\n")
    return "\n\n## ".join(part.strip("\n") for part in (sections[0], *kept)) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, help="folder [default: full size, random weights, made here]")
    parser.add_argument("--res", type=int, required=True)
    parser.add_argument("--objects", default="8", help="numbers of objects, such as 1,8")
    parser.add_argument("--precisions", default="fp32", help=f"of bundles: {', '.join(PRECISIONS)}")
    parser.add_argument("--reference", default="fp32", help=f"of PyTorch: {', '.join(DTYPES)}")
    parser.add_argument("--provider", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of both")
    parser.add_argument("--warm", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--block", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("out/bench"), help="checkpoint, bundles and raw samples")
    parser.add_argument("--program", type=Path, default=Path("target/release/snow-ort"))
    parser.add_argument("--results", type=Path, default=Path("benches/RESULTS.md"))
    arguments, extra = parser.parse_known_args()

    arguments.work.mkdir(parents=True, exist_ok=True)
    checkpoint = arguments.checkpoint or random_checkpoint(arguments.work)
    name = checkpoint.name if checkpoint.name != "checkpoint" else checkpoint.parent.name
    bundles = [
        export(checkpoint, name, arguments.res, precision, arguments.work)
        for precision in arguments.precisions.split(",")
    ]
    stem = f"{name}-{arguments.res}-{arguments.objects.replace(',', '+')}-{arguments.provider}"
    tables = arguments.work / f"{stem}.md"
    command = [str(arguments.program), "bench"]
    for bundle in bundles:
        command += ["--model", str(bundle)]
    command += ["--objects", arguments.objects, "--provider", arguments.provider, "--threads", str(arguments.threads)]
    for flag in ("warm", "rounds", "block"):
        command += [f"--{flag}", str(getattr(arguments, flag))]
    for precision in arguments.reference.split(","):
        reference = [sys.executable, "-W", "ignore", "-m", "snow_export.bench_reference", str(checkpoint)]
        reference += ["--res", str(arguments.res), "--precision", precision, "--device", arguments.provider]
        reference += ["--threads", str(arguments.threads)]
        command += ["--against", f"pytorch-{precision}={shlex.join(reference)}"]
    command += ["--json", str(tables.with_suffix(".json")), "--markdown", str(tables), "--overwrite", *extra]
    run(command)

    heading = f"{name} at {arguments.res} px on {arguments.provider}, objects {arguments.objects.replace(',', ', ')}"
    # Where the program was built is no part of what was measured.
    words = [word for place, word in enumerate(sys.argv) if "--program" not in sys.argv[max(place - 1, 0) : place + 1]]
    said = shlex.join(["scripts/bench-pytorch", *words[1:]])
    text = arguments.results.read_text() if arguments.results.exists() else INTRODUCTION
    text = replace_section(text, heading, f"    {said}\n\n{tables.read_text()}")
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    replace_text(arguments.results, text)
    print(f"{arguments.results}: {heading}")


if __name__ == "__main__":
    try:
        main()
    except ExportError as error:
        sys.exit(f"error: {error}")
