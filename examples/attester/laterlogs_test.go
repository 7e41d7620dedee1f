// SPDX-License-Identifier: Apache-2.0

package attester_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/factory"
	"github.com/instancekey/instancekey/internal/tpmtest"
)

// runLinux measures what a real systemd and a real kernel have measured, n entries of
// the kernel's, and returns their logs.
func (w *world) runLinux(n int) (userspace, ima []byte) {
	w.t.Helper()
	measure := func(pcr int, digest []byte) {
		w.t.Helper()
		if err := factory.Measure(w.d.tpm, factory.Event{PCR: pcr, Digest: digest}); err != nil {
			w.t.Fatal(err)
		}
	}
	userspace, err := os.ReadFile("evidence/testdata/systemd-257.log")
	if err != nil {
		w.t.Fatal(err)
	}
	for text := range strings.SplitSeq(strings.TrimPrefix(string(userspace), "\x1e"), "\x1e") {
		var record struct {
			PCR     int
			Digests []struct{ Digest string }
		}
		if err := json.Unmarshal([]byte(text), &record); err != nil {
			w.t.Fatal(err)
		}
		digest, err := hex.DecodeString(record.Digests[1].Digest)
		if err != nil {
			w.t.Fatal(err)
		}
		measure(record.PCR, digest)
	}
	file, err := os.Open("evidence/testdata/ima-ng.binary-sha256.gz")
	if err != nil {
		w.t.Fatal(err)
	}
	defer file.Close()
	reader, err := gzip.NewReader(file)
	if err != nil {
		w.t.Fatal(err)
	}
	if ima, err = io.ReadAll(reader); err != nil {
		w.t.Fatal(err)
	}
	for rest := ima; n > 0; n-- {
		digest := rest[4:36]
		if bytes.Count(digest, []byte{0}) == 32 { // could not be measured
			digest = bytes.Repeat([]byte{0xff}, 32)
		}
		measure(10, digest)
		for rest = rest[36:]; ; { // name, and data
			size := 4 + binary.LittleEndian.Uint32(rest)
			isName := string(rest[4:size]) == "ima-ng"
			rest = rest[size:]
			if !isName {
				break
			}
		}
	}
	return userspace, ima
}

// TestLaterLogs: what systemd and IMA have measured is explained by their logs, of
// which the quote covers a beginning; the operator says whether they are wanted.
func TestLaterLogs(t *testing.T) {
	const (
		enterInitrd = "51e6b92f405d1f98d96e3de343d61d420ad6923b25de21d766f9298192f14fed"
		leaveInitrd = "3be261aff7db92bf507eae947f4003ffa2bcad0bffe3524601d62d0bc8be7135"
	)
	w := newWorld(t, tpmtest.Dial(t, tpmtest.Simulator(t)), func(w *world) {
		w.reference["pcrs"] = []int{0, 4, 7, 9, 10, 11, 15}
	})
	loaders := w.reference["software"].([]object)[0]["first_events"].(object)["4"]
	chain := w.enrol()
	k := w.instanceKey()
	defer k.flush()
	userspace, ima := w.runLinux(40)
	attest := func(logs object) *attempt {
		w.t.Helper()
		a := w.attempt(k, chain)
		a.proof.more = logs
		return a
	}
	both := object{"canonicalEventLog": userspace, "imaLog": ima}

	// Ignored: as if they were not there, whatever is in them.
	w.wantAttestation(w.send(attest(nil).request()))
	w.wantAttestation(w.send(attest(object{"canonicalEventLog": []byte("x"), "imaLog": []byte("x")}).request()))

	w.reference["userspace_log"], w.reference["ima_log"] = "required", "required"
	w.start()
	w.wantAttestation(w.send(attest(both).request()))
	if found := w.lastRecord()["later_logs"]; found != "PCR 9: 1 events; PCR 10: 40 events; PCR 11: 4 events; PCR 15: 2 events; IMA could not measure 1 files that were being written" {
		t.Errorf("logged %v", found)
	}
	w.wantRefusal(w.send(attest(nil).request()), 400, "platform_evidence_required", "no canonicalEventLog")
	w.wantRefusal(w.send(attest(object{"canonicalEventLog": userspace}).request()), 400, "platform_evidence_required", "no imaLog")
	w.wantRefusal(w.send(attest(object{"canonicalEventLog": userspace, "imaLog": ima[:300]}).request()), 400, "invalid_evidence", "imaLog: ")
	w.wantRefusal(w.send(attest(object{"canonicalEventLog": userspace[:len(userspace)-20], "imaLog": ima}).request()), 400, "invalid_evidence", "canonicalEventLog: record 6:")

	// What they say is judged.
	first := func(pcr string, digests ...string) {
		events := object{"4": loaders, pcr: digests}
		w.reference["software"] = []object{{"swname": "gateway-os", "swversion": "2.0", "verdict": "affirming", "first_events": events}}
		w.start()
	}
	first("11", enterInitrd, leaveInitrd)
	w.wantAttestation(w.send(attest(both).request()))
	first("11", enterInitrd, enterInitrd)
	w.wantRefusal(w.send(attest(both).request()), 403, "policy_violation", `event 2 of PCR 11 ("systemd phase leave-initrd") is 3be261af`)
	aggregate := hex.EncodeToString(ima[4:36]) // of the boot, which comes first
	first("10", aggregate)
	w.wantAttestation(w.send(attest(both).request()))
	first("10", enterInitrd)
	w.wantRefusal(w.send(attest(both).request()), 403, "policy_violation", `event 1 of PCR 10 ("boot_aggregate") is `+aggregate)
	first("10", aggregate)

	// No log of the firmware is needed for what it has no part in.
	release := w.reference["software"].([]object)[0]
	release["first_events"] = object{"10": []string{aggregate}}
	authorities := w.reference["secure_boot_authorities"]
	delete(w.reference, "secure_boot_authorities")
	w.start()
	a := attest(both)
	a.proof.log = nil
	w.wantAttestation(w.send(a.request()))
	release["first_events"] = object{"11": []string{enterInitrd}}
	w.start()
	a = attest(both)
	a.proof.log = nil
	w.wantRefusal(w.send(a.request()), 400, "platform_evidence_required", "no tcgEventLog")
	release["first_events"] = object{"10": []string{aggregate}}
	w.reference["secure_boot_authorities"] = authorities
	w.start()

	// Something that is in no log.
	if err := factory.Measure(w.d.tpm, factory.Event{PCR: 10, Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	w.wantRefusal(w.send(attest(both).request()), 400, "invalid_evidence", "do not add up to what was quoted of PCR 10, with however many of its 57 events")
}
