// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/instancekey/instancekey/examples/authserver"
)

// methods are the values of -method and -resource-method.
var methods = map[string]string{"pop": authserver.MethodPoP, "dpop": authserver.MethodDPoP}

// resourceFlags describe the protected resource.
type resourceFlags struct {
	identifier string
	challenge  string
	singleUse  bool
	methods    string
	dpopNonce  bool
	dpopOnly   bool
}

func (f *resourceFlags) register() {
	flag.StringVar(&f.identifier, "resource", "", "add a protected resource with this identifier: a `URL`, or a path on the issuer's origin such as /resource")
	flag.StringVar(&f.challenge, "resource-challenge", "endpoint", "the resource's challenges, from the `place`: as -challenge")
	flag.BoolVar(&f.singleUse, "resource-single-use", false, "each challenge of the resource is good for one request")
	flag.StringVar(&f.methods, "resource-method", "pop,dpop", "the `methods` that the resource takes, separated by commas")
	flag.BoolVar(&f.dpopNonce, "resource-dpop-nonce", false, "the resource demands nonces of its own in DPoP proofs")
	flag.BoolVar(&f.dpopOnly, "resource-dpop", false, "the resource takes DPoP-bound access tokens only")
}

// config returns nil for no resource.
func (f *resourceFlags) config(challengeLifetime time.Duration) (*authserver.ResourceConfig, error) {
	if f.identifier == "" {
		return nil, nil
	}
	cfg := &authserver.ResourceConfig{Identifier: f.identifier, DPoPNonces: f.dpopNonce, DPoPRequired: f.dpopOnly}
	for name := range strings.SplitSeq(f.methods, ",") {
		if methods[name] == "" {
			return nil, fmt.Errorf("-resource-method %s: use pop and dpop", name)
		}
		cfg.Methods = append(cfg.Methods, methods[name])
	}
	var err error
	if cfg.Challenges, err = challenges(f.challenge, f.singleUse, challengeLifetime); err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	return cfg, nil
}
