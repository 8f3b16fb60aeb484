"""Lines of code that a user writes for one job with autoprune and with a peer: a table in Markdown.

    python benchmarks/lines_of_code/count.py

Each pair of scripts beside this file does the same job, `JOB_autoprune.py` and `JOB_PEER.py`. All are formatted alike
(ruff, 120 characters). Blank lines, comments and docstrings do not count.
"""

import ast
import io
import tokenize
from pathlib import Path

FOLDER = Path(__file__).parent
JOBS = {
    "search": "search how much of every layer to keep within half, compare with dense and uniform, resume, save",
    "measure": "perplexity on a text of one's own",
    "prune": "prune every layer by half with calibration data, save",
}
NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines(source: str) -> int:
    """Lines that hold code."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {n for t in tokens if t.type not in NOT_CODE for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            text = node.body[0]
            found -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return len(found)


def pairs() -> list[tuple[str, str, int, int]]:
    """Job, peer, the peer's lines, our lines."""
    found = []
    for job in JOBS:
        ours = lines((FOLDER / f"{job}_autoprune.py").read_text(encoding="utf-8"))
        for path in sorted(FOLDER.glob(f"{job}_*.py")):
            peer = path.stem.partition("_")[2]
            if peer != "autoprune":
                found.append((job, peer.replace("_", "-"), lines(path.read_text(encoding="utf-8")), ours))
    return found


if __name__ == "__main__":
    print("| job | peer | lines with the peer | lines with autoprune |\n|---|---|---|---|")
    for job, peer, theirs, ours in pairs():
        print(f"| {JOBS[job]} | {peer} | {theirs} | {ours} |")
