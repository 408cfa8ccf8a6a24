#!/bin/sh
# Fetch WordNet's 117,000 different glosses from Debian's package of it, without root and without installing anything.
#
#   scripts/fetch_wordnet.sh [DEST]           default: ${UNMASK_CACHE:-$HOME/.cache/unmask}/wordnet
#
# DEST/train.jsonl and test.jsonl (a tenth, by a hash of the synset) hold a gloss a line as {"text", "label"}; the label
# is the lexicographer's category, such as noun.animal. DEST/nouns.tsv holds all nouns: synset, category, split (none where
# an earlier one has the same gloss), hypernyms, gloss. The files appear all at once, or not at all. Where they are there
# already nothing is done.
set -eu

package=wordnet-base
dest=${1:-${UNMASK_CACHE:-$HOME/.cache/unmask}/wordnet}
dest=${dest%/}

fail() {
    echo "fetch_wordnet: $*" >&2
    exit 1
}

complete() {
    [ -s "$1/train.jsonl" ] && [ -s "$1/test.jsonl" ] && [ -s "$1/nouns.tsv" ]
}

report() {
    echo "WordNet 3.0 (WordNet licence, (c) 2006 Princeton University) lies in $dest"
}

if complete "$dest"; then
    report
    exit 0
fi
[ ! -e "$dest" ] || rmdir "$dest" 2>/dev/null ||
    fail "$dest is there without the three files. Move it away, or name another folder."
# Beside DEST: a rename within one file system is atomic.
{ mkdir -p "$(dirname "$dest")" && work=$(mktemp -d "$dest.part.XXXXXX"); } 2>/dev/null ||
    fail "$dest cannot be written. Name another folder."
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

echo "Fetching $package (6 MB)"
"$(dirname "$0")/fetch_debian_package.sh" "$work" "$package"
data=$work/unpacked/usr/share/wordnet
for part in noun verb adj adv; do
    [ -s "$data/data.$part" ] || fail "$package does not hold data.$part where it used to."
done

# A synset's line: its number, its category, ... | its gloss. The licence's lines begin with spaces.
mkdir "$work/set"
LC_ALL=C awk -v folder="$work/set" '
BEGIN {
    OFS = "\t"
    print "synset", "category", "split", "hypernyms", "gloss" > (folder "/nouns.tsv")
    # The manual page lexnames(5WN) numbers them so; the file itself is not packaged.
    split("adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body " \
        "noun.cognition noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive " \
        "noun.object noun.person noun.phenomenon noun.plant noun.possession noun.process noun.quantity " \
        "noun.relation noun.shape noun.state noun.substance noun.time verb.body verb.change verb.cognition " \
        "verb.communication verb.competition verb.consumption verb.contact verb.creation verb.emotion " \
        "verb.motion verb.perception verb.possession verb.social verb.stative verb.weather adj.ppl", category, " ")
}
/^[0-9]/ {
    plain = substr($0, index($0, " | ") + 3)
    sub(/ +$/, "", plain)
    gloss = plain
    gsub(/\\/, "\\\\", gloss)
    gsub(/"/, "\\\"", gloss)
    # A multiplicative hash: neighbours in the file, which are neighbours in meaning, fall apart.
    part = ($1 * 182605794 + $2 * 48271) % 2147483647 % 10 == 0 ? "test" : "train"
    if (seen[gloss]++) part = ""  # the same words in both files would be learnt by heart
    if ($3 == "n") {
        above = ""
        for (i = 4; i <= NF && $i != "|"; i++) if ($i == "@" || $i == "@i") above = above " " $(i + 1)
        print $1, category[$2 + 1], part, substr(above, 2), plain > (folder "/nouns.tsv")
    }
    if (part) printf "{\"text\": \"%s\", \"label\": \"%s\"}\n", gloss, category[$2 + 1] > (folder "/" part ".jsonl")
}' "$data/data.noun" "$data/data.verb" "$data/data.adj" "$data/data.adv" || fail "the glosses cannot be read."
complete "$work/set" || fail "$package does not hold glosses as it used to."
cp "$work/unpacked/usr/share/doc/$package/copyright" "$work/set/LICENSE"
mv -T "$work/set" "$dest" 2>/dev/null || complete "$dest" || fail "$dest cannot be written. Name another folder."
report
