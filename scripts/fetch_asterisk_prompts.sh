#!/bin/sh
# Fetch the English prompts of the Asterisk telephone system, one speaker, 8 kHz, with what is said in each, from
# Debian's packages of them, without root and without installing anything.
#
#   scripts/fetch_asterisk_prompts.sh [DEST]     default: ${UNMASK_CACHE:-$HOME/.cache/unmask}/asterisk_prompts
#
# DEST/manifest.tsv lists them for AudioFolder. Tones and silence are left out. The label is the folder: digits,
# letters (names of signs too) and phonetic (alfa, bravo, ...) are single words, all others are prompts. A tenth is
# held out, by a hash of the text, so that no text is on both sides.
# The files appear in DEST all at once, or not at all. Where they are there already nothing is done.
set -eu

package=asterisk-core-sounds-en
dest=${1:-${UNMASK_CACHE:-$HOME/.cache/unmask}/asterisk_prompts}
dest=${dest%/}

fail() {
    echo "fetch_asterisk_prompts: $*" >&2
    exit 1
}

report() {
    echo "Asterisk's English prompts (CC BY-SA 3.0, (c) 2003-2010 Allison Smith) lie in $dest"
}

if [ -s "$dest/manifest.tsv" ]; then
    report
    exit 0
fi
[ ! -e "$dest" ] || rmdir "$dest" 2>/dev/null ||
    fail "$dest is there without manifest.tsv. Move it away, or name another folder."
command -v python3 >/dev/null || fail "python3 is missing: it writes the manifest."

# Beside DEST: a rename within one file system is atomic.
{ mkdir -p "$(dirname "$dest")" && work=$(mktemp -d "$dest.part.XXXXXX"); } 2>/dev/null ||
    fail "$dest cannot be written. Name another folder."
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

echo "Fetching $package-wav (18 MB)"
"$(dirname "$0")/fetch_debian_package.sh" "$work" "$package-wav" "$package"
share=$work/unpacked/usr/share
files=$work/files
mkdir "$files"
{ mv "$share/asterisk/sounds/en_US_f_Allison" "$files/sounds" && gunzip "$share/doc/$package/core-sounds-en.txt.gz" &&
    cp "$share/doc/$package-wav/copyright" "$files/LICENSE"; } 2>/dev/null ||
    fail "$package does not hold its files where it used to."

python3 - "$files" "$share/doc/$package/core-sounds-en.txt" <<'PYTHON' || fail "the manifest cannot be written."
import pathlib, re, sys, wave, zlib

folder, transcripts = map(pathlib.Path, sys.argv[1:])
rows = []
for line in transcripts.read_text(encoding="utf-8").splitlines():
    name, _, text = line.partition(":")
    path = folder / "sounds" / (name.strip() + ".wav")
    text = " ".join(re.sub(r"[\[(<].*?[\])>]", "", text).split())  # notes on tones and signs are not spoken
    if line.startswith(";") or not text or not path.is_file():
        continue
    with wave.open(str(path)) as file:
        seconds = file.getnframes() / file.getframerate()
    label = path.parent.name if path.parent.name in ("digits", "letters", "phonetic") else "prompts"
    split = "train" if zlib.crc32(text.lower().encode()) % 10 else "test"
    rows.append((str(path.relative_to(folder)), f"{seconds:.6f}", label, text, split))
if not rows:
    sys.exit(1)
lines = ["\t".join(row) + "\n" for row in [("path", "seconds", "label", "text", "split"), *sorted(rows)]]
(folder / "manifest.tsv").write_text("".join(lines), encoding="utf-8")
PYTHON
mv -T "$files" "$dest" 2>/dev/null || [ -s "$dest/manifest.tsv" ] || fail "$dest cannot be written. Name another folder."
report
