// SPDX-License-Identifier: Apache-2.0

package storeflag

import "testing"

func TestFromTCTI(t *testing.T) {
	for given, want := range map[string]string{
		"device:/dev/tpm0":           "/dev/tpm0",
		"device:":                    "/dev/tpmrm0",
		"device":                     "/dev/tpmrm0",
		"swtpm:path=/run/swtpm.sock": "unix:/run/swtpm.sock",
		"swtpm:host=tpm,port=5000":   "tcp:tpm:5000",
		"swtpm:port=5000":            "tcp:localhost:5000",
		"swtpm:host=::1":             "tcp:[::1]:2321",
		"swtpm":                      "tcp:localhost:2321",
		"soft":                       "soft",
		"":                           "",
		"/dev/tpmrm0":                "/dev/tpmrm0",
		"unix:/x":                    "unix:/x",
		"swtpm:sock=/x":              "error",
		"swtpm:path=/x,port=1":       "error",
		"mssim:host=localhost":       "error",
		"tabrmd:":                    "error",
	} {
		got, err := fromTCTI(given)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %q, %v, want %q", given, got, err, want)
		}
	}
}
