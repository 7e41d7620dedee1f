#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# tpm2-tools 5.4 (Debian 12): "tpm2_createprimary -C o -G ecc" does not make the ECC
# storage root key of the TCG's TPM v2.0 Provisioning Guidance (template H-2), though
# its hierarchy, curve and purpose are the same: it has not noDA, and its unique field
# is empty instead of zeros. A primary key is another one for each template. So a key
# below it, of whose parent a key file can say no more than "the owner hierarchy"
# (draft-bottomley-tpm2-keys, section 3.1.8), does not load in a program that makes the
# storage root key by H-2, as the draft says; the TPM reports an integrity error.
#
# Seen: other Names by -G ecc and by H-2, each the same every time; a key that
# tpm2_create made below the first loads there, and below the second TPM_RC_INTEGRITY.
# Fails if that changes.
set -euo pipefail

if ! command -v tpm2_createprimary >/dev/null || ! command -v swtpm >/dev/null; then
	apt-get -qq update >/dev/null
	apt-get -qq install -y --no-install-recommends swtpm swtpm-tools tpm2-tools >/dev/null
fi
dir=$(mktemp -d)
swtpm socket --tpm2 --tpmstate dir="$dir" --server type=unixio,path="$dir/sock" \
	--ctrl type=unixio,path="$dir/sock.ctrl" --flags not-need-init,startup-clear 2>/dev/null &
pid=$!
trap 'kill $pid; rm -rf "$dir"' EXIT
for _ in $(seq 50); do [ -S "$dir/sock" ] && break; sleep 0.1; done
export TPM2TOOLS_TCTI="swtpm:path=$dir/sock"

tpm2_createprimary --version
name() { # FILE
	tpm2_readpublic -c "$1" -n "$1.name" >/dev/null
	od -An -v -tx1 "$1.name" | tr -d ' \n'
}
{ printf '\x20\x00'; head -c 32 /dev/zero; printf '\x20\x00'; head -c 32 /dev/zero; } >"$dir/unique" # x and y
for run in 1 2; do
	tpm2_createprimary -Q -C o -G ecc -c "$dir/tools.ctx"
	tpm2_flushcontext -t
	tools=$(name "$dir/tools.ctx")
	tpm2_flushcontext -t
	tpm2_createprimary -Q -C o -G ecc -c "$dir/h2.ctx" -u "$dir/unique" \
		-a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt'
	tpm2_flushcontext -t
	h2=$(name "$dir/h2.ctx")
	tpm2_flushcontext -t
	echo "run $run: -G ecc ${tools:0:16}, H-2 ${h2:0:16}"
	[ "$tools" != "$h2" ]
	if [ "$run" = 2 ]; then [ "$tools $h2" = "$before" ]; fi
	before="$tools $h2"
done
tpm2_create -Q -C "$dir/tools.ctx" -G ecc -u "$dir/key.pub" -r "$dir/key.priv"
tpm2_flushcontext -t
tpm2_load -Q -C "$dir/tools.ctx" -u "$dir/key.pub" -r "$dir/key.priv" -c "$dir/key.ctx"
tpm2_flushcontext -t
echo "below -G ecc the key loads"
if tpm2_load -Q -C "$dir/h2.ctx" -u "$dir/key.pub" -r "$dir/key.priv" -c "$dir/key.ctx" 2>"$dir/err"; then
	echo "below H-2 the key loads, too"
	exit 1
fi
grep -o '0x[0-9a-fA-F]*1df\|integrity[^"]*' -i "$dir/err" | head -n 1
grep -qi 'integrity\|1df' "$dir/err"
echo "as described"
