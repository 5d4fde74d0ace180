#!/bin/sh
# An arm64 board without hardware: `arm64_sysroot.sh FOLDER` unpacks Debian's arm64 Python and the aarch64 wheels of numpy
# and ONNX Runtime into FOLDER, for qemu-aarch64-static (apt-get install qemu-user-static). The system's own apt state
# stays as it is; takes a minute and 250 MB.
set -eu
mkdir -p "$1"
folder=$(cd "$1" && pwd)
apt="$folder/apt"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$folder/root/opt/packages"
# the mirror that apt is configured with, unless the variable is set
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1)}
suite=bookworm  # whose Python is 3.11
echo "deb [arch=arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > "$apt/sources.list"
options="-o Dir::Etc::sourcelist=$apt/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$apt/lists
  -o Dir::Cache=$apt/cache -o Dir::State::status=/dev/null -o APT::Architecture=arm64 -o APT::Architectures=arm64"
apt-get $options -qq update
(cd "$apt/cache" && apt-get $options -o APT::Sandbox::User=root -qq download \
  python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libssl3 \
  libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libcrypt1 libtinfo6 libncursesw6 libreadline8)
for package in "$apt"/cache/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
"${PYTHON:-python3}" -m pip install --quiet --no-deps --only-binary=:all: --python-version 311 --implementation cp \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
  --target "$folder/root/opt/packages" --upgrade numpy onnxruntime
# ONNX Runtime reads /proc/cpuinfo when it is loaded, and crashes on x86's: qemu opens this one instead.
mkdir -p "$folder/root/proc"
for number in 0 1; do
  printf 'processor\t: %s\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp ' $number
  printf 'asimdhp cpuid asimdrdm lrcpc dcpop asimddp\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\n'
  printf 'CPU part\t: 0xd0b\nCPU revision\t: 1\n\n'
done > "$folder/root/proc/cpuinfo"
# What a board file names as its Python: everything it starts runs emulated.
cat > "$folder/python3" <<END
#!/bin/sh
export QEMU_CPU=cortex-a76 PYTHONHOME=/usr PYTHONPATH="\${PYTHONPATH:+\$PYTHONPATH:}$folder/root/opt/packages"
exec qemu-aarch64-static -L "$folder/root" "$folder/root/usr/bin/python3.11" "\$@"
END
chmod +x "$folder/python3"
rm -rf "$apt"
"$folder/python3" -c 'import platform, numpy; assert platform.machine() == "aarch64"; print("numpy", numpy.__version__)'
