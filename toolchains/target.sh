# shellcheck shell=bash
# What a build for another processor needs, found or installed. Sourced by `toolchains/build` and `toolchains/test`, which then run
# cargo through `target_cargo`. One way for every Linux target: the standard library from source (`-Zbuild-std`; MIPS has no
# prebuilt one) and zig as C compiler, linker and musl, so that each program is one static file.

ZIG_VERSION=0.14.1   # 0.17.0 fails to link MIPS musl

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${TIDELOG_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidelog}

fail() { printf 'toolchains: %s\n' "$*" >&2; exit 1; }
say() { printf 'toolchains: %s\n' "$*" >&2; }

# target_select NAME: sets triple, target (what cargo's --target takes), zig_target and emulator.
target_select() {
    emulator=''
    case $1 in
        mips)    triple=mips-unknown-linux-musl;        zig_target=mips-linux-musleabi;    emulator=qemu-mips ;;
        mipsel)  triple=mipsel-unknown-linux-musl;      zig_target=mipsel-linux-musleabi;  emulator=qemu-mipsel ;;
        armv7)   triple=armv7-unknown-linux-musleabihf; zig_target=arm-linux-musleabihf;   emulator=qemu-arm ;;
        aarch64) triple=aarch64-unknown-linux-musl;     zig_target=aarch64-linux-musl;     emulator=qemu-aarch64 ;;
        x86_64)  triple=x86_64-unknown-linux-musl;      zig_target=x86_64-linux-musl ;;
        thumbv7em) triple=thumbv7em-none-eabihf;        zig_target='' ;;
        *) fail "unknown target '$1'; known: mips mipsel armv7 aarch64 x86_64 thumbv7em" ;;
    esac
    target=$triple
    # MIPS32 has no 64-bit atomic instructions; our target file lets the compiler call zig's compiler-rt for them.
    [ -f "$root/toolchains/$triple.json" ] && target=$root/toolchains/$triple.json
    [ "$1" = thumbv7em ] || target_dir=${CARGO_TARGET_DIR:-$root/target}/cross
}

# Debian's packages, by name: installed when root, else named in the message.
need_packages() {
    local missing=()
    for package; do dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package"); done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" = 0 ] || fail "missing packages; run: sudo apt-get install --no-install-recommends ${missing[*]}"
    say "installing ${missing[*]}"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"; } \
        </dev/null >&2 || fail "apt-get could not install ${missing[*]}"
}

# A Rust with its library's source: rustup's `rust-src`, else Debian's packages. Sets cargo and, for Debian's, RUSTC.
need_rust_source() {
    cargo=cargo
    if command -v rustc >/dev/null; then
        [ -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library/std" ] && return
        if command -v rustup >/dev/null; then
            say "rustup component add rust-src"
            rustup component add rust-src >&2 </dev/null && return
        fi
    fi
    say "no rust-src from rustup: taking Debian's Rust"
    need_packages rustc-web cargo-web rust-web-src
    cargo=/usr/bin/cargo
    export RUSTC=/usr/bin/rustc
}

# zig, from its Python package, in a virtual environment that outlives the clone.
need_zig() {
    TIDELOG_ZIG_PYTHON=$cache/zig-$ZIG_VERSION/bin/python
    export TIDELOG_ZIG_PYTHON
    "$TIDELOG_ZIG_PYTHON" -m ziglang version >/dev/null 2>&1 && return
    python3 -c 'import ensurepip' 2>/dev/null || need_packages python3-venv
    say "installing ziglang==$ZIG_VERSION into $cache/zig-$ZIG_VERSION"
    python3 -m venv --clear "$cache/zig-$ZIG_VERSION" &&
        "$TIDELOG_ZIG_PYTHON" -m pip install --quiet "ziglang==$ZIG_VERSION" >&2 </dev/null ||
        fail "could not install ziglang==$ZIG_VERSION with pip"
}

# target_environment [PROFILE]: the environment in which cargo builds for a Linux target, with that profile of ours. Paths of this
# machine are kept out of the program's bytes.
target_environment() {
    need_rust_source
    need_zig
    local upper=${triple^^} lower=${triple//-/_} sysroot
    upper=${upper//-/_}
    sysroot=$("${RUSTC:-rustc}" --print sysroot)
    export RUSTC_BOOTSTRAP=1 TIDELOG_ZIG_TARGET=$zig_target
    export "CARGO_TARGET_${upper}_LINKER=$root/toolchains/zig-cc"
    export "CC_$lower=$root/toolchains/zig-cc" "AR_$lower=$root/toolchains/zig-ar"
    local flags="--remap-path-prefix=$root=tidelog --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
    flags+=" --remap-path-prefix=$sysroot=rust --remap-path-prefix=$target_dir=target --remap-path-prefix=$cache=cache"
    # zig brings musl's start files and libc itself; rustc must not look for copies of its own. Our target files say so themselves.
    [ "$target" != "$triple" ] || flags+=" -C target-feature=+crt-static -C link-self-contained=no"
    # Where a static program is at a fixed address anyway, its code may know it: a call on MIPS is two instructions instead of four.
    case $triple in x86_64-*) ;; *) flags+=" -C relocation-model=static" ;; esac
    # A panic ends a router's program, and nothing reads the tables for unwinding. Our target files say so themselves.
    [ "$target" != "$triple" ] || [ "${1-}" != router ] || flags+=" -C force-unwind-tables=no"
    export "CARGO_TARGET_${upper}_RUSTFLAGS=$flags"
    [ -z "$emulator" ] || export "CARGO_TARGET_${upper}_RUNNER=$emulator"
    # As environment, not as flags: nextest asks cargo questions of its own. A cargo that does not know one of them ignores it.
    export CARGO_UNSTABLE_BUILD_STD=std,panic_unwind,panic_abort CARGO_UNSTABLE_BUILD_STD_FEATURES=panic-unwind,optimize_for_size
    export CARGO_UNSTABLE_JSON_TARGET_SPEC=true
}

# Three crates as routers need them: copies of their source with a few lines changed, named by a path override that leaves Cargo.lock as it
# is. A step that finds nothing to change fails, so that a new version of a crate is looked at again.
need_sources_for_routers() {
    local sled lrtable regex
    read -r sled lrtable regex < <("$cargo" metadata --format-version 1 --locked | python3 -c 'import json, os, sys
found = {p["name"]: os.path.dirname(p["manifest_path"]) for p in json.load(sys.stdin)["packages"]}
print(found["sled"], found["lrtable"], found["regex"])') || fail "cargo does not say where the sources of sled, lrtable and regex are"
    copy_source "$sled" sled_for_routers
    sled=$copied
    copy_source "$lrtable" lrtable_in_order
    lrtable=$copied
    copy_source "$regex" regex_for_routers
    cargo_config=(--config "paths=[\"$sled\", \"$lrtable\", \"$copied\"]")
}

# copy_source FOLDER CHANGE: sets copied to a copy of a crate's source that the function CHANGE has changed. It is made once for each
# wording of CHANGE.
copy_source() {
    copied=$cache/routers/$(declare -f "$2" | cksum | cut -d ' ' -f 1)/$(basename "$1")
    [ ! -d "$copied" ] || return 0
    rm -rf "$copied.new"
    mkdir -p "$(dirname "$copied")"
    cp -r "$1" "$copied.new"
    "$2" "$copied.new"
    mv "$copied.new" "$copied"
}

# change FILE EXPRESSION: what sed's expression says, which has to change something.
change() {
    sed "$2" "$1" >"$1.changed"
    ! cmp -s "$1" "$1.changed" || fail "nothing to change in $1: $2"
    mv "$1.changed" "$1"
}

# On MIPS, where sled believes that there are no 64-bit atomics, it puts locks in their place, in memory that it then fills with zeros,
# and panics when it has read 64 pages. Our targets have those atomics, so the copy uses them. And its greatest key is a constant of a MiB
# of ones; a KiB is greater than each of ours as well.
sled_for_routers() {
    change "$1/src/atomic_shim.rs" '/target_arch = "mips",$/d; s/target_arch = "mips", //'
    change "$1/src/iter.rs" 's/&\[255; 1024 \* 1024\]/\&[255; 1024]/'
    # What cargo does for dependencies from a registry.
    change "$1/src/lib.rs" 's/^#!\[\(deny\|warn\)(/#![allow(/; 1i #![allow(warnings)]'
}

# lrtable makes the tables of PromQL's parser and lists in them the conflicts that it solved, in the order of a hash map, which is another
# in each build. Each symbol leads out of a state into a state of its own, so the order of those is an order of the symbols.
lrtable_in_order() {
    change "$1/src/lib/statetable.rs" 's/for (&sym, ref_stidx) in sg\.edges(stidx) {/let mut edges: Vec<_> = sg.edges(stidx).iter().collect();\n            edges.sort_unstable_by_key(|(_, to)| usize::from(**to));\n            for (\&sym, ref_stidx) in edges {/'
    change "$1/src/lib/mod.rs" '1i #![allow(warnings)]'
}

# Labels are short, so a router's regular expressions are matched by backtracking within bounds, as the crate does with short texts; what makes
# long texts fast is left out. It finds the same.
regex_for_routers() {
    change "$1/Cargo.toml" '/^perf = \[/,/^\]/{/"perf-dfa",/d; /"perf-literal",/d; /"perf-onepass",/d}'
}

# target_cargo COMMAND [ARGUMENTS]: cargo for the selected target.
target_cargo() {
    local command=$1; shift
    local cargo_config=()
    need_sources_for_routers
    "$cargo" $command "${cargo_config[@]}" --target "$target" --target-dir "$target_dir" "$@"
}
