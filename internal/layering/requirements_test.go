// SPDX-License-Identifier: Apache-2.0

package layering_test

import (
	"encoding/json"
	"testing"
)

// requirements are the modules that go.mod requires, and what for. Whoever uses a
// package of this module has them all in his module graph, so what a tool alone needs
// is required by a module of the tool's own, as examples/otel is. instancectl and
// quickstart are in this module, since they are run from its root.
var requirements = map[string]string{
	"github.com/foxboron/go-tpm-keyfiles": "tpm: the form of key files",
	"github.com/fxamacker/cbor/v2":        "tpm, reference attester: evidence",
	"github.com/go-jose/go-jose/v4":       "everything: JWS and JWK",
	"github.com/google/go-attestation":    "reference attester: boot logs",
	"github.com/google/go-tpm":            "tpm: TPM commands",
	"golang.org/x/crypto":                 "tpm, reference attester: ASN.1, sealed sessions",
	"golang.org/x/oauth2":                 "client: grants",
	"golang.org/x/sys":                    "tpm: Windows and Linux",
	"github.com/google/go-tpm-tools":      "tests, instancectl, quickstart: the simulator",
}

func TestRequirements(t *testing.T) {
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal([]byte(goTool(t, "../..", nil, "mod", "edit", "-json")), &mod); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, r := range mod.Require {
		switch _, ok := requirements[r.Path]; {
		case ok:
			found++
		case !r.Indirect:
			t.Errorf("go.mod requires %s: if a tool alone needs it, give the tool a module of its own; or else say here what it is for", r.Path)
		}
	}
	if found != len(requirements) {
		t.Errorf("go.mod requires %d of the %d modules here", found, len(requirements))
	}
}
