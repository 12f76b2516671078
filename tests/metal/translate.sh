#!/usr/bin/env bash
# Metal text becomes a file of C++, OUTPUT, and one of C++ for OpenCL, OUTPUT.clcpp:
# translate.sh CLANG REPOSITORY LIBRARY OUTPUT [PREPROCESSOR_OPTION...] -- FILE.metal...
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
clang=$1 repository=$2 library=$3 output=$4
shift 4
options=()
while [[ $1 != -- ]]; do
    options+=("$1")
    shift
done
shift
python3 "$repository/turboquant/metal/flatten.py" "$repository" "$@" >"$output.metal"
"$clang" -E -x c++ -std=c++14 -nostdinc -D__METAL_VERSION__=310 -D__METAL__=1 "${options[@]}" \
    -isystem "$here/msl/preprocess" "$output.metal" >"$output.preprocessed"
{
    echo '#include "msl/metal_stdlib"'
    python3 "$here/translate.py" "$library" <"$output.preprocessed"
} >"$output"
{
    echo '#include "opencl/metal_stdlib"'
    python3 "$here/translate.py" "$library" --opencl <"$output.preprocessed"
} >"$output.clcpp"
