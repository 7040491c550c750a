#!/bin/sh
# Builds llama.cpp as the first process of a Linux guest, to compare the unikernel with.
#
#   bench/peer/build.sh FOLDER
#
# FOLDER then holds `Image`, Debian's kernel, and `init-CPU` for each processor. llama.cpp comes from
# the source package of llama-cpp-python on PyPI. The cross-compilation takes some minutes.
set -eu
cd "$(dirname "$0")/../.."
version=0.3.36
case $1 in /*) folder=$1 ;; *) folder=$PWD/$1 ;; esac
mkdir -p "$folder"

# Remove what an earlier run has left unfinished.
rm -rf "$folder/part"
mkdir "$folder/part"
if [ ! -f "$folder/Image" ]; then
    ci/debian.sh "$folder/part" arm64 - 'linux-image-*-cloud-arm64'
    mv "$folder"/part/boot/vmlinuz-* "$folder/Image"
fi

source=$folder/llama_cpp_python-$version/vendor/llama.cpp
if [ ! -d "$source" ]; then
    pip3 download --quiet --no-deps --no-binary llama-cpp-python --dest "$folder/part" \
        "llama-cpp-python==$version"
    tar -xzf "$folder/part/llama_cpp_python-$version.tar.gz" -C "$folder/part"
    mv "$folder/part/llama_cpp_python-$version" "$folder/"
fi
rm -r "$folder/part"
made_from=$(cat bench/peer/build.sh bench/peer/init.cpp | cksum)

# build CPU ARCHITECTURE: builds `init-CPU`, with llama.cpp's kernels for this architecture.
build() {
    init=$folder/init-$1
    [ ! -f "$init" ] || [ "$made_from" != "$(cat "$init.from" 2>/dev/null)" ] || return 0
    rm -f "$init.from"
    build=$folder/build-$1
    cmake -S "$source" -B "$build" -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
        -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
        -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_CPU_ARM_ARCH="$2" \
        -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF
    cmake --build "$build" --target llama --parallel "$(nproc)"
    aarch64-linux-gnu-g++ -O2 -static -march="$2" -I"$source/include" -I"$source/ggml/include" \
        -o "$init" bench/peer/init.cpp \
        "$build/src/libllama.a" "$build/ggml/src/libggml.a" "$build/ggml/src/libggml-cpu.a" \
        "$build/ggml/src/libggml-base.a" -lpthread
    echo "$made_from" >"$init.from"
}
build cortex-a72 armv8-a
build neoverse-n1 armv8.2-a+dotprod
build max armv8.2-a+dotprod+i8mm
