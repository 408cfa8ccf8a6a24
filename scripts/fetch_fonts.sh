#!/bin/sh
# Fetch the 465 fonts of AEnigma from Debian's package of them, without root and without installing anything.
#
#   scripts/fetch_fonts.sh [DEST]             default: ${UNMASK_CACHE:-$HOME/.cache/unmask}/fonts
#
# The files appear in DEST all at once, or not at all. Where they are there already nothing is done.
set -eu

package=fonts-aenigma
dest=${1:-${UNMASK_CACHE:-$HOME/.cache/unmask}/fonts}
dest=${dest%/}

fail() {
    echo "fetch_fonts: $*" >&2
    exit 1
}

complete() {
    for name in "$1"/*.ttf; do
        [ -s "$name" ] && return
    done
    return 1
}

report() {
    echo "AEnigma's fonts ((c) 1995-2008 Brian Kent; free to pass on, and to change if changes are noted and he is named)"
    echo "lie in $dest"
}

if complete "$dest"; then
    report
    exit 0
fi
[ ! -e "$dest" ] || rmdir "$dest" 2>/dev/null ||
    fail "$dest is there without fonts. Move it away, or name another folder."

# Beside DEST: a rename within one file system is atomic.
{ mkdir -p "$(dirname "$dest")" && work=$(mktemp -d "$dest.part.XXXXXX"); } 2>/dev/null ||
    fail "$dest cannot be written. Name another folder."
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

echo "Fetching $package (7 MB)"
"$(dirname "$0")/fetch_debian_package.sh" "$work" "$package"
files=$work/unpacked/usr/share/fonts/truetype/aenigma
complete "$files" || fail "$package does not hold its fonts where it used to."
cp "$work/unpacked/usr/share/doc/$package/copyright" "$files/LICENSE"
mv -T "$files" "$dest" 2>/dev/null || complete "$dest" || fail "$dest cannot be written. Name another folder."
report
