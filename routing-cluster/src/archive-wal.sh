#!/bin/sh
# Archives one WAL file for PostgreSQL: archive-wal PATH NAME. It succeeds only when the archive holds the whole file
# under its name, on disk. `up` writes this file, and writes it again when it was changed.
set -u
umask 077
archive=@ARCHIVE@
owner=@OWNER@
from=$1
name=$2
wal=$archive/wal
to=$wal/$name

fail() {
    echo "archive-wal: $*" >&2
    exit 1
}

# Where a disk is not mounted there is an empty directory, on the wrong disk.
grep -q "$owner" "$archive/archive.json" 2>/dev/null ||
    fail "$archive is not this cluster's archive: is its disk mounted?"

if [ -e "$to" ]; then
    cmp -s "$from" "$to" || fail "$to exists with other content, and is not overwritten"
    # It may have been put there by an attempt that ended before it was on disk.
    sync "$to" "$wal" || fail "$to may not be on disk"
    exit 0
fi

temporary=$wal/.$name.$$
trap 'rm -f "$temporary"' EXIT
trap 'exit 1' HUP INT QUIT TERM
# What an attempt that was killed has left.
rm -f "$wal/.$name."*
cp "$from" "$temporary" || fail "$name was not copied"
sync "$temporary" || fail "$name is not on disk"
# Unlike a rename, a link never takes the place of what is there.
ln "$temporary" "$to" || fail "$name was not given its name"
sync "$wal" || fail "$name may lose its name"
