#!/bin/sh
# Fetch Fashion-MNIST from Debian's package of it, without root and without installing anything.
#
#   scripts/fetch_fashion_mnist.sh [DEST]     default: ${UNMASK_CACHE:-$HOME/.cache/unmask}/fashion_mnist
#
# The files appear in DEST all at once, or not at all. Where they are there already nothing is done.
set -eu

package=dataset-fashion-mnist
dest=${1:-${UNMASK_CACHE:-$HOME/.cache/unmask}/fashion_mnist}
dest=${dest%/}

fail() {
    echo "fetch_fashion_mnist: $*" >&2
    exit 1
}

complete() {
    for name in train-images-idx3 train-labels-idx1 t10k-images-idx3 t10k-labels-idx1; do
        [ -s "$1/$name-ubyte.gz" ] || [ -s "$1/$name-ubyte" ] || return 1
    done
}

report() {
    echo "Fashion-MNIST (MIT licence, (c) 2017 Zalando SE) lies in $dest"
}

if complete "$dest"; then
    report
    exit 0
fi
[ ! -e "$dest" ] || rmdir "$dest" 2>/dev/null ||
    fail "$dest is there without the four files. Move it away, or name another folder."

# Beside DEST: a rename within one file system is atomic.
{ mkdir -p "$(dirname "$dest")" && work=$(mktemp -d "$dest.part.XXXXXX"); } 2>/dev/null ||
    fail "$dest cannot be written. Name another folder."
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

echo "Fetching $package (31 MB)"
"$(dirname "$0")/fetch_debian_package.sh" "$work" "$package"
files=$work/unpacked/usr/share/datasets/fashion-mnist
complete "$files" || fail "$package does not hold the four files where it used to."
cp "$work/unpacked/usr/share/doc/$package/copyright" "$files/LICENSE"
mv -T "$files" "$dest" 2>/dev/null || complete "$dest" || fail "$dest cannot be written. Name another folder."
report
