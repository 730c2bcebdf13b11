#!/usr/bin/env bash
# Makes network.wasm of network.c with clang and wasm-ld (Debian: apt install clang lld).
set -euo pipefail
cd "$(dirname "$0")"
clang --target=wasm32 -O2 -mllvm -disable-lsr -std=c17 -Wall -Wextra -Werror -ffp-contract=off -msimd128 -mbulk-memory -nostdlib -fno-builtin \
    -Wl,--no-entry,--strip-all,--export=__heap_base,-z,stack-size=65536 \
    -o "${1:-../../hyperrecon_jax/explorer/static/network/network.wasm}" network.c
