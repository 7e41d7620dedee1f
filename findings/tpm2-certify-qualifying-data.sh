#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# tpm2-tools 5.4 (Debian 12): tpm2_certify has no option for the qualifying data of
# TPM2_Certify, and does not leave it empty either: extraData of what it writes is
# always 00ff55aa. tpm2_quote has -q. So a certification by tpm2_certify is fresh to
# nobody, and whoever writes a device's side with tpm2-tools has to send TPM2_Certify
# by other means (tpm2_send, a library).
#
# Seen: no -q in the usage; extraData 00ff55aa twice, in statements over two keys.
# Fails if that changes.
set -euo pipefail

if ! command -v tpm2_certify >/dev/null || ! command -v swtpm >/dev/null; then
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

tpm2_certify --version
if tpm2_certify --help=no-man 2>&1 | grep -q -e '-q ' -e qualif; then
	echo "tpm2_certify has an option for qualifying data now"
	exit 1
fi
tpm2_createprimary -Q -C e -G ecc256:ecdsa-sha256:null -c "$dir/ak.ctx" \
	-a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign|noda'
tpm2_flushcontext -t
for key in 1 2; do
	tpm2_createprimary -Q -C o -G "ecc$((key * 128 + 128))" -c "$dir/key.ctx" -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign'
	tpm2_flushcontext -t
	tpm2_certify -Q -c "$dir/key.ctx" -C "$dir/ak.ctx" -g sha256 -o "$dir/attest" -s "$dir/sig"
	tpm2_flushcontext -t
	# TPMS_ATTEST: magic, type (8017, certify), qualifiedSigner (2 + 34 bytes), extraData.
	bytes=$(xxd -p -c 1000 "$dir/attest" 2>/dev/null || od -An -v -tx1 "$dir/attest" | tr -d ' \n')
	extra=${bytes:84:12}
	echo "certification $key: type ${bytes:8:4}, extraData with its size: $extra"
	[ "${bytes:0:12}" = ff5443478017 ] && [ "$extra" = 000400ff55aa ]
done
echo "as described"
