#!/bin/sh
# Make a tree of installed packages ready to ship: nothing that only a compiler or a test reads, and
# bytecode, since a read-only file system cannot keep what Python compiles at its first start.
#
#   sh finish.sh TREE
set -eu
packages=$(echo "$1"/lib/python3*/site-packages)

# torch: C++ headers, and test programs; `torch_shm_manager` is looked for by `import torch`.
rm -rf "$packages/torch/include" "$packages/torch/test" "$packages/pyarrow/include"
[ ! -d "$packages/torch/bin" ] || find "$packages/torch/bin" -type f ! -name torch_shm_manager -delete
find "$packages" -type d -name tests -prune -exec rm -rf {} +

# By hash and unchecked: the same bytes in every build, and no look at the sources at start-up. What torch
# tests itself with has syntax of newer Pythons.
/opt/turnpoint/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
    -x /torch/testing/ "$packages"
