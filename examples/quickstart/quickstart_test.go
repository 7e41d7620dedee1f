// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/instancekey/instancekey/examples/internal/exampletest"
	"github.com/instancekey/instancekey/examples/internal/storeflag"
	"github.com/instancekey/instancekey/internal/tpmtest"
	"github.com/instancekey/instancekey/keystore"
)

// line is any line of quickstart -json.
type line struct {
	step
	OK    *bool
	Error string
}

func quickstart(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err strings.Builder
	status = run(t.Context(), args, &out, &err)
	exampletest.NoJWT(t, out.String()+err.String())
	return status, out.String(), err.String()
}

func TestJSON(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) { checkJSON(t, store) })
}

func TestJSONSocket(t *testing.T) {
	network, address := tpmtest.SWTPM(t, tpmtest.SWConfig{NotStarted: true}).Addr()
	checkJSON(t, network+":"+address)
}

func checkJSON(t *testing.T, store string) {
	status, stdout, stderr := quickstart(t, "-store", store, "-json")
	if status != 0 || stderr != "" {
		t.Fatalf("status %d, stderr %q", status, stderr)
	}
	lines := exampletest.Lines[line](t, stdout)
	var steps []string
	for _, l := range lines {
		steps = append(steps, l.Step)
	}
	if want := []string{"a", "b", "c", "d", "1", "2", "3", "4", "5", ""}; !slices.Equal(steps, want) {
		t.Fatalf("steps %q", steps)
	}
	last := lines[9]
	thumbprint, err := keystore.Thumbprint(lines[0].Key.Key)
	if err != nil {
		t.Fatal(err)
	}
	if last.OK == nil || !*last.OK || last.Store != store || last.KeyThumbprint != thumbprint {
		t.Errorf("last line %+v, the key is %s", last, thumbprint)
	}
	if want := `{"ok":true,"store":"` + store + `","key_thumbprint":"` + thumbprint + `"}` + "\n"; !strings.HasSuffix(stdout, want) {
		t.Errorf("the output does not end with %s", want)
	}

	// What one step gave is what the next one used.
	for i, typ := range map[int]string{
		1: "client-attestation-request+jwt",
		3: "oauth-client-attestation+jwt",
		6: "oauth-client-attestation-pop+jwt",
	} {
		if got := member(t, lines[i].JWT.Header, "typ"); got != typ {
			t.Errorf("step %s: typ %q", lines[i].Step, got)
		}
	}
	if got := member(t, lines[6].JWT.Claims, "challenge"); got == "" || got != lines[5].Challenge {
		t.Errorf("the PoP JWT has challenge %q, the server gave %q", got, lines[5].Challenge)
	}
	for _, i := range []int{2, 8} {
		if got := lines[i].Log["instance_key"]; got != thumbprint {
			t.Errorf("step %s: the server verified key %q", lines[i].Step, got)
		}
	}
	if lines[8].TokenType != "Bearer" || lines[8].ExpiresIn != 300 {
		t.Errorf("step 5: %+v", lines[8].step)
	}
}

func member(t *testing.T, object json.RawMessage, name string) string {
	t.Helper()
	var members map[string]any
	if err := json.Unmarshal(object, &members); err != nil {
		t.Fatal(err)
	}
	text, _ := members[name].(string)
	return text
}

func TestText(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) {
		status, stdout, stderr := quickstart(t, "-store", store)
		if status != 0 || stderr != "" {
			t.Fatalf("status %d, stderr %q", status, stderr)
		}
		rest := stdout
		for _, want := range []string{
			"(a) ", "made now", "(b) ", "client-attestation-request+jwt", "(c) ", "(d) ", "oauth-client-attestation+jwt",
			"(1) ", "(2) ", "(3) ", "oauth-client-attestation-pop+jwt", "(4) ", "(5) ", "a Bearer token for 300 s", "\nOK: ", "(store: " + store + ")",
		} {
			_, after, found := strings.Cut(rest, want)
			if !found {
				t.Fatalf("no %q in its place in:\n%s", want, stdout)
			}
			rest = after
		}
	})
}

func TestKeyIsFoundAgain(t *testing.T) {
	exampletest.EachStore(t, func(t *testing.T, store string) {
		dir := filepath.Join(t.TempDir(), "keys")
		var thumbprints []string
		for i := range 2 {
			status, stdout, stderr := quickstart(t, "-store", store, "-keys", dir, "-json")
			if status != 0 {
				t.Fatalf("run %d: status %d, stderr %q", i, status, stderr)
			}
			first := exampletest.Lines[line](t, stdout)[0]
			if first.Created == nil || *first.Created != (i == 0) {
				t.Errorf("run %d: created %v", i, first.Created)
			}
			thumbprints = append(thumbprints, first.KeyThumbprint)
		}
		if thumbprints[0] != thumbprints[1] {
			t.Errorf("keys %q", thumbprints)
		}
	})
}

func TestDefaultStore(t *testing.T) {
	status, stdout, stderr := quickstart(t, "-json")
	want, why := "soft", "built without cgo"
	if storeflag.SimulatorBuiltIn {
		want, why = "simulator", "using the TPM simulator"
	}
	lines := exampletest.Lines[line](t, stdout)
	if last := lines[len(lines)-1]; status != 0 || last.Store != want || !strings.Contains(stderr, why) {
		t.Errorf("status %d, store %q, stderr %q", status, last.Store, stderr)
	}
}

func TestBadUsage(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"unknown store": {[]string{"-store", "hsm"}, "-store"},
		"unknown flag":  {[]string{"-storr", "soft"}, "-storr"},
		"other story":   {[]string{"-story", "x"}, "no such story"},
		"story's store": {[]string{"-story", "firmware", "-store", "soft"}, "use -store simulator"},
		"story's TPM":   {[]string{"-story", "firmware", "-store", "tcp:127.0.0.1:1"}, "use -store simulator"},
		"story's keys":  {[]string{"-story", "firmware", "-keys", "x"}, "leave -keys out"},
		"argument":      {[]string{"soft"}, "unexpected argument"},
	} {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := quickstart(t, tt.args...)
			if status != 2 || stdout != "" || !strings.Contains(stderr, tt.want) {
				t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
			}
		})
	}
}

func TestNoTPM(t *testing.T) {
	status, stdout, _ := quickstart(t, "-store", "tcp:127.0.0.1:1", "-json")
	lines := exampletest.Lines[line](t, stdout)
	if status != 1 || len(lines) != 1 || lines[0].OK == nil || *lines[0].OK || !strings.Contains(lines[0].Error, "no TPM") {
		t.Errorf("status %d, output %s", status, stdout)
	}
	if status, stdout, _ := quickstart(t, "-store", "tcp:127.0.0.1:1"); status != 1 || stdout != "FAILED after no step.\n" {
		t.Errorf("status %d, output %s", status, stdout)
	}
}

// A story is complete only if all steps came in their order.
func TestStory(t *testing.T) {
	for name, tt := range map[string]struct {
		steps string
		want  string
	}{
		"complete":     {"abcd12345", ""},
		"none":         {"", "step a was not seen"},
		"last missing": {"abcd1234", "step 5 was not seen"},
		"one missing":  {"abd12345", "step d came when c was due"},
		"out of order": {"abcd21345", "step 2 came when 1 was due"},
		"twice":        {"aabcd12345", "step a came when b was due"},
		"one too many": {"abcd123455", "step 5 came again"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &story{out: new(strings.Builder), json: true}
			for _, id := range tt.steps {
				s.step(step{Step: string(id)})
			}
			err := s.complete()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// Nobody is told that all went well who could not read it.
func TestBrokenOutput(t *testing.T) {
	var stderr strings.Builder
	if status := run(t.Context(), []string{"-store", "soft", "-json"}, brokenWriter{}, &stderr); status != 1 {
		t.Errorf("status %d", status)
	}
}
