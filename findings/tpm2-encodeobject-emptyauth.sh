#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# tpm2-tools 5.4 (Debian 12): in the key file of tpm2_encodeobject, emptyAuth says the
# opposite of what is true. The field tells whether the key is used without a password
# (draft-bottomley-tpm2-keys, section 3.1.2). A key with a password, encoded with -p as
# its manual page says, is written with emptyAuth TRUE, and one without as FALSE.
# Whoever goes by the field sends an empty password for a key that has one, which the
# TPM counts as a wrong try, or asks a user for a password that there is not.
#
# Seen: emptyAuth TRUE with password, FALSE without. Fails if that changes.
set -euo pipefail

if ! command -v tpm2_encodeobject >/dev/null || ! command -v swtpm >/dev/null; then
	apt-get -qq update >/dev/null
	apt-get -qq install -y --no-install-recommends swtpm swtpm-tools tpm2-tools openssl >/dev/null
fi
dir=$(mktemp -d)
swtpm socket --tpm2 --tpmstate dir="$dir" --server type=unixio,path="$dir/sock" \
	--ctrl type=unixio,path="$dir/sock.ctrl" --flags not-need-init,startup-clear 2>/dev/null &
pid=$!
trap 'kill $pid; rm -rf "$dir"' EXIT
for _ in $(seq 50); do [ -S "$dir/sock" ] && break; sleep 0.1; done
export TPM2TOOLS_TCTI="swtpm:path=$dir/sock"

tpm2_encodeobject --version
tpm2_createprimary -Q -C o -G ecc -c "$dir/parent.ctx"
tpm2_flushcontext -t
tpm2_create -Q -C "$dir/parent.ctx" -G ecc -u "$dir/with.pub" -r "$dir/with.priv" -p secret
tpm2_flushcontext -t
tpm2_create -Q -C "$dir/parent.ctx" -G ecc -u "$dir/without.pub" -r "$dir/without.priv"
tpm2_flushcontext -t
tpm2_encodeobject -Q -C "$dir/parent.ctx" -u "$dir/with.pub" -r "$dir/with.priv" -p -o "$dir/with.pem"
tpm2_flushcontext -t
tpm2_encodeobject -Q -C "$dir/parent.ctx" -u "$dir/without.pub" -r "$dir/without.priv" -o "$dir/without.pem"
tpm2_flushcontext -t

# The BOOLEAN is the only one in the file.
field() { openssl asn1parse -in "$dir/$1.pem" | sed -n 's/.*BOOLEAN *:\([0-9]*\).*/\1/p'; }
with=$(field with) without=$(field without)
echo "with a password emptyAuth is '$with', without '$without' (255 is TRUE; none is FALSE)"
[ "$with" = 255 ] && [ "${without:-0}" = 0 ]
echo "as described"
