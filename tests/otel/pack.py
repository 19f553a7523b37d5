#!/usr/bin/env python3
"""Turns what the sink kept into a folder of the corpus: decompressed bodies, and meta.json about them.

    pack.py FAMILY --sink DIRECTORY --output DIRECTORY --library NAME=VERSION ...
"""

import argparse
import gzip
import json
import os
from datetime import UTC, datetime
from pathlib import Path

# What a body must not hold: places of the machine that captured, or the key it used.
FORBIDDEN = (os.getcwd().encode(), b"/root/", b"/home/", b"site-packages", b"node_modules", b"al_test_capture")


def decompress(data, encoding):
    if encoding in (None, "identity"):
        return data
    if encoding == "gzip":
        return gzip.decompress(data)
    raise SystemExit(f"a body came in the encoding {encoding}, which this script cannot undo")


def pack(sink, output):
    requests = []
    for line in (sink / "requests.jsonl").read_text().splitlines():
        row = json.loads(line)
        signal = row["path"].rpartition("/")[2]
        encoding = "json" if row["content_type"].startswith("application/json") else "pb"
        body = decompress((sink / f"{row['number']:03d}.body").read_bytes(), row["content_encoding"])
        found = [text.decode() for text in FORBIDDEN if text in body]
        if found:
            raise SystemExit(f"request {row['number']} holds {found}: configure the driver so that it does not")
        name = f"{row['number']:03d}.{signal}.{encoding}"
        (output / name).write_bytes(body)
        requests.append({"file": name, **{key: value for key, value in row.items() if key != "number"}})
    return requests


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family")
    parser.add_argument("--sink", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--library", action="append", default=[])
    arguments = parser.parse_args()
    meta = {
        "family": arguments.family,
        "captured_on": datetime.now(UTC).date().isoformat(),
        "libraries": dict(sorted(library.split("=", 1) for library in arguments.library)),
        "requests": pack(arguments.sink, arguments.output),
    }
    (arguments.output / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")


if __name__ == "__main__":
    main()
