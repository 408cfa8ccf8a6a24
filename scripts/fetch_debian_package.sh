#!/bin/sh
# Download Debian packages and unpack them into a folder, without root and without installing anything.
#
#   scripts/fetch_debian_package.sh FOLDER PACKAGE...      the files: FOLDER/unpacked
set -eu

folder=$1
shift

fail() {
    echo "fetch_debian_package: $*" >&2
    exit 1
}

for tool in apt-get apt-cache dpkg; do
    command -v "$tool" >/dev/null ||
        fail "$tool is missing: this needs Debian or Ubuntu. Elsewhere unpack by hand what $* holds."
done
for package in "$@"; do
    apt-cache show "$package" >/dev/null 2>&1 ||
        fail "apt does not know $package. Run 'apt-get update' as root, then this again."
done
for package in "$@"; do
    # Root's apt would download as a user who cannot write here. It checks the package's hash all the same.
    (cd "$folder" && apt-get -qq -o APT::Sandbox::User=root download "$package") ||
        fail "the download failed. If apt's lists are old run 'apt-get update' as root, then this again."
    dpkg -x "$folder/$package"_*.deb "$folder/unpacked" || fail "$package cannot be unpacked."
done
