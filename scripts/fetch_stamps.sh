#!/bin/sh
# Fetch 343 cut-out pictures from Debian's package of Tux Paint's stamps, without root and without installing anything.
#
#   scripts/fetch_stamps.sh [DEST]            default: ${UNMASK_CACHE:-$HOME/.cache/unmask}/stamps
#
# Six of their sixteen kinds, as PNG files with transparency: animals, clothes, food, household, plants, vehicles.
# The files appear in DEST all at once, or not at all. Where they are there already nothing is done.
set -eu

package=tuxpaint-stamps-default
kinds="animals clothes food household plants vehicles"
dest=${1:-${UNMASK_CACHE:-$HOME/.cache/unmask}/stamps}
dest=${dest%/}

fail() {
    echo "fetch_stamps: $*" >&2
    exit 1
}

complete() {
    for kind in $kinds; do
        [ -d "$1/$kind" ] || return
    done
}

report() {
    echo "Stamps (GPL 2, see LICENSE there) lie in $dest"
}

if complete "$dest"; then
    report
    exit 0
fi
[ ! -e "$dest" ] || rmdir "$dest" 2>/dev/null ||
    fail "$dest is there without stamps. Move it away, or name another folder."

# Beside DEST: a rename within one file system is atomic.
{ mkdir -p "$(dirname "$dest")" && work=$(mktemp -d "$dest.part.XXXXXX"); } 2>/dev/null ||
    fail "$dest cannot be written. Name another folder."
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

echo "Fetching $package (161 MB)"
"$(dirname "$0")/fetch_debian_package.sh" "$work" $package
files=$work/files
mkdir "$files"
for kind in $kinds; do
    mv "$work/unpacked/usr/share/tuxpaint/stamps/$kind" "$files" 2>/dev/null ||
        fail "$package does not hold its stamps where it used to."
done
find "$files" -type f ! -name '*.png' -delete # names, sounds and drawings in other formats
cp "$work/unpacked/usr/share/doc/$package/copyright" "$files/LICENSE"
mv -T "$files" "$dest" 2>/dev/null || complete "$dest" || fail "$dest cannot be written. Name another folder."
report
