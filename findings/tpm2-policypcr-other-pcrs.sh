#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A policy session in which TPM2_PolicyPCR has asserted PCR 7 is void as soon as PCR 10 is
# extended, which the policy does not name: what the TPM compares is a counter of all
# updates (TPM 2.0 Part 3, "TPM2_PolicyPCR"), and the key's use fails with
# TPM_RC_PCR_CHANGED. So beside Linux's IMA, which extends PCR 10 for each file it
# measures, a key that is bound to PCR 7 fails now and then although PCR 7 never changed.
# Some PCRs do not count (TPM_PT_PCR_NO_INCREMENT): with PCR 16 or 23 nothing happens, so
# whoever tries it with the PCRs that are there for tests does not see it.
#
# Seen with swtpm 0.7.1 and tpm2-tools 5.4 of Debian 12. Fails if that changes.
# Needs: apt-get install swtpm tpm2-tools libtss2-tcti-swtpm0
set -euo pipefail

dir=$(mktemp -d)
cd "$dir"
port=$((20000 + RANDOM % 20000))
swtpm --version | head -n 1
tpm2_sign --version | sed 's/ tctis.*//'
swtpm socket --tpm2 --tpmstate dir=. --flags not-need-init,startup-clear \
	--server type=tcp,port=$port --ctrl type=tcp,port=$((port + 1)) &
trap 'kill %1; rm -rf "$dir"' EXIT
export TPM2TOOLS_TCTI=swtpm:host=127.0.0.1,port=$port
for _ in $(seq 50); do
	tpm2_getrandom --hex 1 >/dev/null 2>&1 && break
	sleep 0.1
done

tpm2_createpolicy -Q --policy-pcr -l sha256:7 -L policy
tpm2_createprimary -Q -C o -G ecc -c parent
tpm2_create -Q -C parent -G ecc -a 'fixedtpm|fixedparent|sensitivedataorigin|sign' -L policy -u public -r private
tpm2_flushcontext -t
tpm2_load -Q -C parent -u public -r private -c key
tpm2_flushcontext -t
echo input >message

# try PCR extends a PCR between policy and signature, and says how that went.
try() {
	tpm2_startauthsession --policy-session -S session
	tpm2_policypcr -Q -S session -l sha256:7
	if [ "$1" != none ]; then
		tpm2_pcrextend "$1:sha256=$(printf '%064d' 1)"
	fi
	result=signed
	tpm2_sign -Q -c key -p session:session -g sha256 -o signature message 2>error || result=$(grep -o 'PCR have changed since checked' error)
	tpm2_flushcontext -t
	tpm2_flushcontext session
	echo "PCR $1 extended: $result"
	[ "$result" = "$2" ]
}
try none signed
try 16 signed
try 23 signed
try 10 'PCR have changed since checked'
echo 'as described'
