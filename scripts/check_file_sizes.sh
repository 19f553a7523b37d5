#!/usr/bin/env bash
# A file fits a head: no tracked source file is longer than 700 lines.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

limit_lines=700
too_long=0
while IFS= read -r -d '' file; do
    # Removed from the disk but not yet from the index.
    [[ -f $file ]] || continue
    lines=$(wc -l <"$file")
    if ((lines > limit_lines)); then
        echo "$file has $lines lines, more than $limit_lines: split it"
        too_long=1
    fi
done < <(git ls-files -z -- '*.rs' '*.ts' '*.tsx' '*.py')
exit "$too_long"
