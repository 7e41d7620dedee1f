// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/tpm"
)

// TestDocumentedCosts: the table in the package's documentation says of each kind of
// key how many commands there are.
func TestDocumentedCosts(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.Join(strings.Fields(strings.ReplaceAll(string(text), "//", " ")), " ")
	sim := tpmtest.Simulator(t)
	var lines []string
	counts := make(map[string][]string)
	for _, o := range kinds {
		add := func(line string, n int) {
			if len(counts[line]) == 0 {
				lines = append(lines, line)
			}
			counts[line] = append(counts[line], fmt.Sprint(n))
		}
		synctest.Test(t, func(t *testing.T) { costsOf(t, sim, o, add) })
		synctest.Test(t, func(t *testing.T) { costsAtChip(t, sim, o, add) })
	}
	for _, line := range lines {
		want := line + " " + strings.Join(counts[line], " ")
		if !strings.Contains(doc, " "+want+" ") {
			t.Errorf("the documentation does not say %q", want)
		}
	}
}

// costsOf counts what a Store sends.
func costsOf(t *testing.T, sim *tpmtest.Sim, o tpm.KeyOptions, add func(line string, commands int)) {
	r := newRig(t, sim, withPIN("1234"))
	var key keystore.Key
	count := func(line string, do func()) {
		r.calls.Reset()
		do()
		add(line, r.calls.Count())
	}
	pause := func() {
		time.Sleep(tpm.IdleTime)
		synctest.Wait()
	}
	count("making a key", func() { key = create(t, r.Store, "key", o) })
	r.Close()
	r.Store = r.reopen(t)
	count("opening a key", func() { key = open(t, r.Store, "key") })
	sign(t, key)
	count("signature", func() { sign(t, key) })
	pause()
	count("signature after 30 seconds", func() { sign(t, key) })
	sign(t, key)
	another := create(t, r.Store, "another", o)
	for range 2 {
		sign(t, another)
		sign(t, key)
	}
	sign(t, another)
	count("signature, keys in turn", func() { sign(t, key) })
	prove(t, key)
	count("evidence", func() { prove(t, key) })
	pause()
	count("evidence after 30 seconds", func() { prove(t, key) })
}

// costsAtChip counts what comes to the TPM behind a resource manager.
func costsAtChip(t *testing.T, sim *tpmtest.Sim, o tpm.KeyOptions, add func(line string, commands int)) {
	chip := tpmtest.Record(sim)
	r := newRig(t, tpmtest.NewResourceManager(t, chip), withPIN("1234"))
	count := func(line string) {
		key := open(t, r.Store, "key")
		sign(t, key)
		chip.Reset()
		sign(t, key)
		add(line, chip.Count())
	}
	create(t, r.Store, "key", o)
	count("signature behind /dev/tpmrm0")
	if err := r.Persist(t.Context(), "key", handle); err != nil {
		t.Fatal(err)
	}
	count("signature so if persistent")
	if err := r.Delete(t.Context(), "key"); err != nil {
		t.Fatal(err)
	}
}
