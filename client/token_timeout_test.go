// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/instancekey/instancekey/client"
	"github.com/instancekey/instancekey/keystore"
	"github.com/instancekey/instancekey/transport"
	"github.com/instancekey/instancekey/transport/transporttest"
)

// hangingKey is a key whose device has ceased to answer.
type hangingKey struct{ keystore.Key }

func (hangingKey) Sign(ctx context.Context, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// TestTimeoutNamesItsStep: whoever waits for a token in vain is told what for, and so
// is everybody who waits with them.
func TestTimeoutNamesItsStep(t *testing.T) {
	for hung, step := range map[string]transport.Step{
		transporttest.Metadata:  transport.StepMetadata,
		transporttest.Challenge: transport.StepChallenge,
		transporttest.Token:     transport.StepSend,
		"attester":              transport.StepAttestation,
		"key":                   transport.StepSign,
	} {
		t.Run(hung, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				base := roundTripFunc(inProcess{r}.RoundTrip)
				if hung != "attester" && hung != "key" {
					base = endpointBase{inProcess{r}, r, hung, func(ctx context.Context) { <-ctx.Done() }}.RoundTrip
				}
				if hung == "attester" {
					r.attester.set(func(ctx context.Context, _ client.AttestRequest, _ int) (string, error) {
						<-ctx.Done()
						return "", ctx.Err()
					})
				}
				c := r.client(t, func(cfg *client.Config) {
					cfg.Base = base
					if hung == "key" {
						cfg.Store, cfg.Key = nil, hangingKey{newKey(t, "ES256")}
					}
				})
				results := make(chan error, 3)
				get := func(limit time.Duration) {
					ctx, cancel := context.WithTimeout(t.Context(), limit)
					defer cancel()
					_, err := c.Token(ctx, "scope")
					results <- err
				}
				for range 2 {
					go get(3 * time.Second)
				}
				<-time.After(time.Second)
				go get(time.Second) // joins what is under way
				for range 3 {
					err := <-results
					var failed *transport.Error
					if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &failed) {
						t.Fatalf("%v, want a *transport.Error that is context.DeadlineExceeded", err)
					}
					if failed.Step != step || failed.Audience != r.Issuer || !failed.Timeout() || !failed.Temporary() {
						t.Errorf("%v: step %q of %q, want %q of %q", err, failed.Step, failed.Audience, step, r.Issuer)
					}
					if !strings.Contains(err.Error(), string(step)) {
						t.Errorf("the text does not name the step %q: %v", step, err)
					}
				}
			})
		})
	}
}
