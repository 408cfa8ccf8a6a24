#!/bin/sh
# Fetch 27 photos from Debian's packages of desktop backgrounds, without root and without installing anything.
#
#   scripts/fetch_photos.sh [DEST]            default: ${UNMASK_CACHE:-$HOME/.cache/unmask}/photos
#
# Backgrounds that are drawn are left out. Each photo's author and licence stand in DEST/LICENSE-<package>.
# The files appear in DEST all at once, or not at all. Where they are there already nothing is done.
set -eu

packages="lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds"
dest=${1:-${UNMASK_CACHE:-$HOME/.cache/unmask}/photos}
dest=${dest%/}

fail() {
    echo "fetch_photos: $*" >&2
    exit 1
}

complete() {
    for name in "$1"/*.jpg; do
        [ -s "$name" ] && return
    done
    return 1
}

report() {
    echo "Photos (CC BY 4.0, CC BY-SA 3.0 and 4.0, CC0 1.0, GPL 2 or later, see LICENSE-* there) lie in $dest"
}

if complete "$dest"; then
    report
    exit 0
fi
[ ! -e "$dest" ] || rmdir "$dest" 2>/dev/null ||
    fail "$dest is there without photos. Move it away, or name another folder."

# Beside DEST: a rename within one file system is atomic.
{ mkdir -p "$(dirname "$dest")" && work=$(mktemp -d "$dest.part.XXXXXX"); } 2>/dev/null ||
    fail "$dest cannot be written. Name another folder."
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

echo "Fetching $packages (74 MB)"
# shellcheck disable=SC2086
"$(dirname "$0")/fetch_debian_package.sh" "$work" $packages
backgrounds=$work/unpacked/usr/share/backgrounds
files=$work/files
mkdir "$files"
mv "$backgrounds"/*.jpg "$backgrounds"/mate/nature/*.jpg "$files" 2>/dev/null ||
    fail "$packages do not hold their photos where they used to."
for drawn in Fossa Painting-Colors analogpattern umang; do
    rm -f "$files/$drawn"_*
done
for package in $packages; do
    cp "$work/unpacked/usr/share/doc/$package/copyright" "$files/LICENSE-$package"
done
mv -T "$files" "$dest" 2>/dev/null || complete "$dest" || fail "$dest cannot be written. Name another folder."
report
