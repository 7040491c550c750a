#!/bin/sh
# Builds llama.cpp for a Linux guest, to compare the unikernel with.
#
#   bench/peer/build.sh FOLDER init CPU     the guest's only process, which measures a model
#   bench/peer/build.sh FOLDER server CPU   llama-server, and the first process that starts it
#
# FOLDER then holds `Image`, Debian's kernel, and the drivers of its package in `modules/`. For
# `init` it holds `init-CPU`, for `server` it holds `server-CPU` and `serve`. llama.cpp comes from the
# source package of llama-cpp-python on PyPI. The cross-compilation takes some minutes, that of
# llama-server a quarter of an hour on two free cores.
set -eu
cd "$(dirname "$0")/../.."
version=0.3.36
case $1 in /*) folder=$1 ;; *) folder=$PWD/$1 ;; esac
program=$2
cpu=$3
mkdir -p "$folder"

# The architecture for ggml's kernels. The rest of llama.cpp is the same on all processors.
case $cpu in
cortex-a72) architecture=armv8-a ;;
neoverse-n1) architecture=armv8.2-a+dotprod ;;
max) architecture=armv8.2-a+dotprod+i8mm ;;
esac

# Remove what an earlier run has left unfinished.
rm -rf "$folder/part"
mkdir "$folder/part"
if [ ! -f "$folder/Image" ] || [ ! -d "$folder/modules" ]; then
    ci/debian.sh "$folder/part" arm64 - 'linux-image-*-cloud-arm64'
    rm -rf "$folder/modules"
    mkdir "$folder/part/modules"
    # Each comes after those that it needs. The numbers keep the order.
    number=10
    for module in virtio virtio_ring virtio_mmio failover net_failover virtio_net virtio_blk fat \
        vfat nls_cp437 nls_ascii; do
        find "$folder/part/lib/modules" -name "$module.ko" \
            -exec mv {} "$folder/part/modules/$number-$module.ko" \;
        number=$((number + 1))
    done
    mv "$folder"/part/boot/vmlinuz-* "$folder/Image"
    mv "$folder/part/modules" "$folder/"
fi

source=$folder/llama_cpp_python-$version/vendor/llama.cpp
if [ ! -d "$source" ]; then
    pip3 download --quiet --no-deps --no-binary llama-cpp-python --dest "$folder/part" \
        "llama-cpp-python==$version"
    tar -xzf "$folder/part/llama_cpp_python-$version.tar.gz" -C "$folder/part"
    mv "$folder/part/llama_cpp_python-$version" "$folder/"
fi
rm -r "$folder/part"

made=$folder/$program-$cpu
made_from=$(cat bench/peer/* | cksum)
[ ! -f "$made" ] || [ "$made_from" != "$(cat "$made.from" 2>/dev/null)" ] || exit 0
rm -f "$made.from"

build=$folder/build
cmake -S "$source" -B "$build" -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
    -DCMAKE_EXE_LINKER_FLAGS=-static -DBUILD_SHARED_LIBS=OFF \
    -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_CPU_ARM_ARCH="$architecture" \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF
case $program in
init)
    cmake --build "$build" --target llama --parallel "$(nproc)"
    aarch64-linux-gnu-g++ -O2 -static -march="$architecture" \
        -I"$source/include" -I"$source/ggml/include" -o "$made" bench/peer/init.cpp \
        "$build/src/libllama.a" "$build/ggml/src/libggml.a" "$build/ggml/src/libggml-cpu.a" \
        "$build/ggml/src/libggml-base.a" -lpthread
    ;;
server)
    cmake --build "$build" --target llama-server --parallel "$(nproc)"
    aarch64-linux-gnu-strip -o "$made" "$build/bin/llama-server"
    aarch64-linux-gnu-g++ -O2 -std=c++17 -static -s -o "$folder/serve" bench/peer/serve.cpp
    ;;
esac
echo "$made_from" >"$made.from"
