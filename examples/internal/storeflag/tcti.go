// SPDX-License-Identifier: Apache-2.0

package storeflag

import (
	"fmt"
	"net"
	"strings"
)

// fromTCTI returns the store that tpm2-tools name by a TCTI, and any other store as it
// is: device:PATH, swtpm:path=PATH, and swtpm:host=HOST,port=PORT, whose parts are
// localhost and 2321 where they are left out.
func fromTCTI(store string) (string, error) {
	kind, conf, _ := strings.Cut(store, ":")
	switch kind {
	case "device":
		if conf == "" {
			conf = "/dev/tpmrm0"
		}
		return conf, nil
	case "mssim", "tabrmd":
		return "", fmt.Errorf("-store %.60q: that protocol is not spoken here: use the device, or swtpm", store)
	case "swtpm":
	default:
		return store, nil
	}
	host, port := "localhost", "2321"
	for part := range strings.SplitSeq(conf, ",") {
		name, value, _ := strings.Cut(part, "=")
		switch {
		case name == "path" && value != "" && conf == part:
			return "unix:" + value, nil
		case name == "host" && value != "":
			host = value
		case name == "port" && value != "":
			port = value
		case part != "":
			return "", fmt.Errorf("-store %.60q: use swtpm:path=PATH or swtpm:host=HOST,port=PORT", store)
		}
	}
	return "tcp:" + net.JoinHostPort(host, port), nil
}
