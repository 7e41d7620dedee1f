// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/sha256"

	"github.com/google/go-tpm/tpm2"
)

// What fuzz tests reach past the signatures.

func ParseStatement(raw []byte) error {
	_, err := parseStatement(raw)
	return err
}

func ParseAK(raw []byte) error {
	_, _, err := parseAK(raw)
	return err
}

func ParseAttest(raw []byte) (again []byte, err error) {
	attest, err := parse[tpm2.TPMSAttest](raw)
	if err != nil {
		return nil, err
	}
	if quoted, err := attest.Attested.Quote(); err == nil {
		selectedPCRs(quoted.PCRSelect)
	}
	return tpm2.Marshal(*attest), nil
}

func ParseSignature(raw []byte) (again []byte, err error) {
	signature, err := parse[tpm2.TPMTSignature](raw)
	if err != nil {
		return nil, err
	}
	return tpm2.Marshal(*signature), nil
}

func ParsePublic(raw []byte) (again []byte, err error) {
	area, err := parse[tpm2.TPMTPublic](raw)
	if err != nil {
		return nil, err
	}
	tpm2.ObjectName(area)
	publicKey(area)
	return tpm2.Marshal(*area), nil
}

// SecureBoot draws the conclusion about Secure Boot from a boot log.
func SecureBoot(log []byte, pcrs map[int][]byte, authorities ...[]byte) (notes []string, err error) {
	events, err := replay(log, pcrs)
	if err != nil {
		return nil, err
	}
	return secureBoot(events, authorities)
}

// FirmwareVersion reads what the firmware calls itself.
func FirmwareVersion(log []byte, pcrs map[int][]byte) string {
	events, err := replay(log, pcrs)
	if err != nil {
		return err.Error()
	}
	return firmwareVersion(events)
}

// Replay reads a boot log against the PCRs 0, 4 and 7, and draws all
// conclusions from it.
func Replay(log, pcr0, pcr4, pcr7 []byte) (events int, firmware string, err error) {
	replayed, err := replay(log, map[int][]byte{0: pcr0, 4: pcr4, 7: pcr7})
	if err != nil {
		return 0, "", err
	}
	secureBoot(replayed, nil)
	return len(replayed), firmwareVersion(replayed), nil
}

// Judge says which release a boot is, or why it is none.
func Judge(t interface{ Helper() }, r *Reference, log []byte, pcrs map[int][]byte) string {
	t.Helper()
	events, err := replay(log, r.logged(pcrs))
	if err != nil {
		return err.Error()
	}
	judged, err := r.judge(&boot{pcrs: pcrs, events: events, hasLog: true})
	if err != nil {
		return err.Error()
	}
	return judged.release.name + " " + judged.release.version
}

// ReplayLater verifies what the operating system's logs say of PCRs, and returns how
// many events these are made of, and what is said of it.
func ReplayLater(r *Reference, firmware, userspace, ima []byte, pcrs map[int][]byte) (events int, said []string, err error) {
	logs, err := r.laterLogs(&platform{EventLog: firmware, UserspaceLog: userspace, IMALog: ima})
	if err != nil {
		return 0, nil, err
	}
	replayed, _, err := logs.replayAll(logs.explains(r, pcrs), pcrs)
	for _, e := range replayed {
		said = append(said, string(e.Data))
	}
	return len(replayed), said, err
}

// FilledUp returns the value of PCR 10 by a kernel before 5.8, after n entries.
func FilledUp(ima []byte, n int) []byte {
	events, _, err := parseIMALog(ima)
	if err != nil {
		panic(err)
	}
	value := make([]byte, 32)
	for _, e := range events.filledUp[:n] {
		next := sha256.Sum256(append(value, e.Digest...))
		value = next[:]
	}
	return value
}

// DemandLogs reads those of the operating system's logs that are demanded.
func DemandLogs(r *Reference, userspace, ima []byte) error {
	_, err := r.laterLogs(&platform{UserspaceLog: userspace, IMALog: ima})
	return err
}
