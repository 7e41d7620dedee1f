#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# OpenSSL's provider tpm2-openssl 1.1.1 (Debian 12): emptyAuth is OPTIONAL in a TSS2 key
# file (draft-bottomley-tpm2-keys, section 3.1.2), and without it a key needs a
# password. The provider takes such a file for one of a key without: it does not ask for
# the password, nor use the one it is given, and the TPM's refusal is a counted wrong
# try. With emptyAuth FALSE in the same file it asks and signs. go-tpm-keyfiles, whose
# ASN.1 leaves FALSE out, writes the first kind.
#
# Seen: signs with emptyAuth FALSE, fails without the field. Fails if that changes.
set -euo pipefail

modules=$(openssl version -m 2>/dev/null || true)
modules=${modules#*\"}
if ! command -v swtpm >/dev/null || [ ! -e "${modules%\"}/tpm2.so" ]; then
	apt-get -qq update >/dev/null
	apt-get -qq install -y --no-install-recommends swtpm swtpm-tools openssl tpm2-openssl libtss2-tcti-swtpm0 python3 >/dev/null
fi
dir=$(mktemp -d)
swtpm socket --tpm2 --tpmstate dir="$dir" --server type=unixio,path="$dir/sock" \
	--ctrl type=unixio,path="$dir/sock.ctrl" --flags not-need-init,startup-clear 2>/dev/null &
pid=$!
trap 'kill $pid; rm -rf "$dir"' EXIT
for _ in $(seq 50); do [ -S "$dir/sock" ] && break; sleep 0.1; done
export TPM2OPENSSL_TCTI="swtpm:path=$dir/sock"
tpm() { openssl "$@" -provider tpm2 -provider default -propquery '?provider=tpm2'; }

dpkg-query -W tpm2-openssl openssl 2>/dev/null || openssl version
tpm genpkey -algorithm EC -pkeyopt group:P-256 -pkeyopt user-auth:secret -out "$dir/key.pem"
# The field: [0] EXPLICIT BOOLEAN, right behind the OBJECT IDENTIFIER.
python3 - "$dir" <<'PY'
import base64, sys
dir = sys.argv[1]
lines = open(f"{dir}/key.pem").read().split("\n")
der = base64.b64decode("".join(l for l in lines if l and not l.startswith("-")))
head = 2 if der[1] < 0x80 else 2 + (der[1] & 0x7f)
oid = 2 + der[head + 1]
body = der[head:]
kind, rest = body[:oid], body[oid:]
if rest[0] == 0xa0:
    rest = rest[2 + rest[1]:]
def write(name, field):
    content = kind + field + rest
    n = len(content)
    text = base64.encodebytes(b"\x30\x82" + n.to_bytes(2, "big") + content if n > 255 else b"\x30\x81" + bytes([n]) + content).decode()
    open(f"{dir}/{name}.pem", "w").write(f"-----BEGIN TSS2 PRIVATE KEY-----\n{text}-----END TSS2 PRIVATE KEY-----\n")
write("false", bytes.fromhex("a003010100"))
write("absent", b"")
PY
echo text >"$dir/text"
signs() { tpm pkeyutl -sign -rawin -digest sha256 -inkey "$dir/$1.pem" -passin pass:secret -in "$dir/text" -out "$dir/sig" >"$dir/log" 2>&1; }
signs false && echo "emptyAuth FALSE: signs"
if signs absent; then
	echo "without emptyAuth: signs, too"
	exit 1
fi
echo "without emptyAuth: $(grep -io 'auth[a-z ]*fail[a-z]*\|the authorization[^:(]*' "$dir/log" | head -n 1)"
grep -qi 'auth' "$dir/log"
echo "as described"
