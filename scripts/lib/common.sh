# Shared by the scripts: where things are, step lines with elapsed time, logs, packages. Source it, do not run it.
# shellcheck shell=bash

# What programs print is parsed here, and llama.cpp takes options from the environment: the user's settings would change both.
export LC_ALL=C.UTF-8
for TQ_VARIABLE in "${!LLAMA_ARG_@}"; do unset "$TQ_VARIABLE"; done
unset TQ_VARIABLE

TQ_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TQ_LIB=$TQ_ROOT/scripts/lib
TQ_DEPS=$TQ_ROOT/build/_deps # everything fetched or built of others; cmake/LlamaCpp.cmake uses the same folder
TQ_LOGS=$TQ_ROOT/build/log
# shellcheck source=scripts/lib/pins
source "$TQ_LIB/pins"

# shellcheck disable=SC2034  # used by the scripts that source this file
{
    LLAMA_CPP_SOURCE=$TQ_DEPS/llama.cpp-$LLAMA_CPP_TAG
    LLAMA_CPP_BUILD=$LLAMA_CPP_SOURCE-build
    LLAMA_CPP_API2_SOURCE=$TQ_DEPS/llama.cpp-$LLAMA_CPP_API2_TAG
    LLAMA_CPP_API2_BUILD=$LLAMA_CPP_API2_SOURCE-build
    MODEL_PATH=$TQ_DEPS/model-$MODEL_VERSION/$MODEL_FILE
    OPENAI_ENV=$TQ_DEPS/openai-$OPENAI_VERSION
}

TQ_PACKAGES=(build-essential cmake ninja-build git python3 python3-pip python3-venv unzip
    libgtest-dev libbenchmark-dev libcli11-dev nlohmann-json3-dev libfmt-dev librapidcheck-dev)
TQ_TEST_PACKAGES=(clang clang-format clang-19 libboost-context-dev) # beside these: what only scripts/test needs
TQ_ARM64_PACKAGES=(g++-aarch64-linux-gnu qemu-user-static libgtest-dev) # libgtest-dev has GoogleTest's source

elapsed() { printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60)); }

say() { printf '[%s] %s\n' "$(elapsed)" "$*" >&2; }

die() {
    printf '%s: error: %s\n' "${0##*/}" "$1" >&2
    shift
    if (($#)); then printf '  %s\n' "$@" >&2; fi
    exit 1
}

# option_value "$@": the value of the option that the arguments start with, or a usage error.
option_value() {
    if (($# < 2)) || [[ -z $2 ]]; then usage_error "$1 needs a value"; fi
    printf '%s' "$2"
}

usage_error() {
    printf '%s: error: %s (see %s --help)\n' "${0##*/}" "$1" "$0" >&2
    exit 2
}

# The newest line of a log that is worth a status line: of those that TQ_STEP_LINES matches, if it is set.
last_line() {
    tail -c 4000 "$1" | tr '\r' '\n' | sed 's/\x1b\[[0-9;]*[A-Za-z]//g' | grep -a "${TQ_STEP_LINES:-[^[:space:]]}" |
        tail -n 1 || true
}

# run_step "what is done" LOG COMMAND...: runs the command with its output in build/log/LOG, shows progress (a status
# line on a terminal, a line every 20 s elsewhere) and one closing line with the time it took. A command that fails
# ends the script with the end of its log.
run_step() {
    local what=$1 log=$TQ_LOGS/$2 start=$SECONDS status=0 columns
    shift 2
    mkdir -p "$TQ_LOGS"
    : >"$log"
    [[ -t 2 ]] || say "$what ..."
    "$@" >"$log" 2>&1 </dev/null &
    local pid=$! tick=0
    TQ_STEP_PID=$pid
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.5
        tick=$((tick + 1))
        if [[ -t 2 ]]; then
            columns=$(tput cols 2>/dev/null || echo 100)
            printf '\r\033[K%.*s' "$((columns - 1))" "[$(elapsed)] $what: $(last_line "$log")" >&2
        elif ((tick % 40 == 0)); then
            say "  $what: $(last_line "$log" | cut -c1-100)"
        fi
    done
    wait "$pid" || status=$?
    TQ_STEP_PID=
    [[ ! -t 2 ]] || printf '\r\033[K' >&2
    if ((status)); then
        say "$what: FAILED (exit status $status). The end of ${log#"$TQ_ROOT"/}:"
        tail -n 25 "$log" | sed 's/^/    /' >&2
        die "$what failed" "the whole log: $log" "${TQ_STEP_HINT:-fix what it names and start this script again; finished steps are kept}"
    fi
    say "$what: done in $((SECONDS - start)) s"
}

kill_tree() {
    local child children=()
    read -ra children 2>/dev/null <"/proc/$1/task/$1/children" || true
    for child in "${children[@]}"; do kill_tree "$child"; done
    kill "$1" 2>/dev/null || true
}

# Whatever a step still runs when the script is interrupted ends with it.
stop_step() {
    if [[ -n ${TQ_STEP_PID:-} ]]; then kill_tree "$TQ_STEP_PID"; fi
}
trap stop_step EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

apt_get() {
    local sudo=()
    ((EUID == 0)) || sudo=(sudo)
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "$@"
}

apt_install() {
    # A list of packages that is there and recent enough saves the update.
    apt_get install -y --no-install-recommends "$@" || { apt_get update && apt_get install -y --no-install-recommends "$@"; }
}

is_debian() { command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; }

# require_commands "packages to name" COMMAND...: on systems without apt-get; leaves the rest to CMake.
require_commands() {
    local packages=$1 command missing=()
    shift
    for command in "$@"; do
        command -v "$command" >/dev/null || missing+=("$command")
    done
    ((${#missing[@]} == 0)) || die "not a Debian-like system, and these commands are missing: ${missing[*]}" \
        "install them and the equivalents of: $packages"
}

# install_packages PACKAGE...: those that are missing.
install_packages() {
    local package missing=()
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status} ' "$package" 2>/dev/null) == installed* ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "installing with apt-get: ${missing[*]}"
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "these Debian packages are missing: ${missing[*]}" \
            "there is no sudo; as root run: apt-get install ${missing[*]}"
        # Asks for the password here, not in the middle of a progress line.
        sudo -v || die "these Debian packages are missing: ${missing[*]}" \
            "sudo refused to install them; as root run: apt-get install ${missing[*]}"
    fi
    TQ_STEP_HINT="run it by hand: apt-get update && apt-get install ${missing[*]}${TQ_PACKAGES_HINT:-}" \
        run_step "apt-get install" apt.log apt_install "${missing[@]}"
}

ensure_packages() {
    if is_debian; then
        install_packages "${TQ_PACKAGES[@]}"
    else
        require_commands "${TQ_PACKAGES[*]}" c++ cmake ninja python3 unzip
    fi
    require_cmake
}

# With an older one the presets' own message would be "Unrecognized version".
require_cmake() {
    local version
    version=$(cmake --version | sed -n '1s/^cmake version //p')
    [[ $(printf '%s\n' 3.25 "$version" | sort -V | head -n 1) == 3.25 ]] ||
        die "CMake 3.25 or newer is needed, and $(command -v cmake) is $version" "a newer one: pip install cmake"
}

ensure_test_packages() {
    if is_debian; then install_packages "${TQ_TEST_PACKAGES[@]}"; fi # elsewhere scripts/test says what it goes without
}

# The cross-compiler and the emulator of the preset arm64-qemu.
ensure_arm64_packages() {
    if is_debian; then
        install_packages "${TQ_ARM64_PACKAGES[@]}"
    else
        require_commands "${TQ_ARM64_PACKAGES[*]}" aarch64-linux-gnu-g++ qemu-aarch64-static
    fi
}

# Where a llama.cpp source tree other than the pinned one is built; cmake/LlamaCpp.cmake computes the same name.
user_llama_cpp_build() { printf '%s/llama.cpp-user-%s-build' "$TQ_DEPS" "$(printf '%s' "$1" | md5sum | cut -c1-8)"; }

# The machine's cores as far as this process may use them, two threads of one core counted once.
physical_cores() {
    local cores allowed
    allowed=$(nproc)
    cores=$(lscpu -p=CORE,SOCKET 2>/dev/null | grep -v '^#' | sort -u | wc -l || echo 0)
    ((cores > 0 && cores < allowed)) && echo "$cores" || echo "$allowed"
}
