#!/usr/bin/env python3
"""Every relative link of every committed Markdown file leads to a file that exists."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(<?([^)>\s]+)>?\)")
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


def main():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.split("\n")
    broken = 0
    for name in filter(None, listed):
        text = CODE.sub("", (ROOT / name).read_text(encoding="utf-8"))
        for target in LINK.findall(text):
            path = target.split("#")[0]
            if path and "://" not in path and not path.startswith("mailto:"):
                if not ((ROOT / name).parent / path).exists():
                    print(f"{name}: no such file: {target}")
                    broken += 1
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
