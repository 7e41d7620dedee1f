// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/instancekey/instancekey/examples/internal/jwtview"
)

// attested is what a Client Attestation JWT says of a device.
type attested struct {
	Hardware string `json:"hwmodel"` // as text, and not in base64url as in the claim
	Software string `json:"swname"`
	Version  string `json:"swversion"`
	OEMBoot  bool   `json:"oemboot"`
	Status   string `json:"ear_status"`
}

// readAttested reads the claims about the device: nothing, if there are none.
func readAttested(view *jwtview.View) (said attested, err error) {
	var claims struct {
		Hardware string   `json:"hwmodel"`
		Software string   `json:"swname"`
		Version  []string `json:"swversion"`
		OEMBoot  bool     `json:"oemboot"`
		Submods  struct {
			Platform struct {
				Status string `json:"ear_status"`
			} `json:"platform"`
		} `json:"submods"`
	}
	if err := json.Unmarshal(view.Claims, &claims); err != nil {
		return said, err
	}
	hardware, err := base64.RawURLEncoding.DecodeString(claims.Hardware)
	said = attested{Hardware: string(hardware), Software: claims.Software, OEMBoot: claims.OEMBoot, Status: claims.Submods.Platform.Status}
	if len(claims.Version) > 0 {
		said.Version = claims.Version[0]
	}
	return said, err
}

// String is for people.
func (a attested) String() string {
	secureBoot := "off"
	if a.OEMBoot {
		secureBoot = "on"
	}
	return fmt.Sprintf("%s, %s %s, Secure Boot %s, verdict %s", a.Hardware, a.Software, a.Version, secureBoot, a.Status)
}
